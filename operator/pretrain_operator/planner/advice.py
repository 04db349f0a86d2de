"""Should this run be started at all? Rules of thumb as lines of advice; none of them stops anybody.

The gates for pre-training, the token ratios and the sizes at 4 bits are this project's own summary
of common practice in 2026; where a rule has an author, the line names him.
"""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import total_tokens

from .assumptions import Assumptions
from .compute import world_size
from .memory import accumulation
from .parameters import Parameters
from .reliability import ReliabilityPlan

_CLEAN_TOKENS = 10e9
_BUDGET = 20_000.0
_CHINCHILLA, _PRODUCTION, _SMALL_MODELS = 20, 100, 1000
_STATE_BYTES = 16  # a parameter: weight, gradient, two moments, all float32
_SERVED_GB = 0.7  # a billion parameters at 4 bits, with the cache


@dataclass(frozen=True)
class Advice:
    rule: str
    passes: bool | None  # None: only the user can tell
    text: str


def advice(
    config: RunConfig,
    counts: Parameters,
    reliability: ReliabilityPlan,
    dollars: float | None,
    assumptions: Assumptions,
) -> tuple[Advice, ...]:
    tokens = total_tokens(config)
    lines = [
        _clean_tokens(tokens),
        _budget(dollars),
        _token_ratio(tokens / counts.total),
        _state(counts.total, world_size(config), assumptions),
        _serving(counts.total),
        _interval(reliability),
    ]
    return tuple(lines + _caveats(config))


def _clean_tokens(tokens: float) -> Advice:
    enough = tokens >= _CLEAN_TOKENS
    text = f"{_short(tokens)} tokens; pre-training pays from 10B clean tokens that no open"
    text += " model has seen"
    return Advice(
        "clean-tokens", None if enough else False, text + ("" if enough else "; else fine-tune one")
    )


def _short(number: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if number >= size:
            return f"{number / size:,.3g}{unit}"
    return f"{number:,.0f}"


def _budget(dollars: float | None) -> Advice:
    cost = "cost unknown" if dollars is None else f"${dollars:,.0f}"
    text = f"{cost}; the gate is ${_BUDGET:,.0f} left once fine-tuning and retrieval have failed,"
    return Advice("budget", None, text + " or sovereignty, edge devices or learning as the reason")


def _token_ratio(ratio: float) -> Advice:
    """Hoffmann et al. 2022: 20 tokens a parameter for the least loss at given compute."""
    text = f"{ratio:,.0f} tokens a parameter: "
    if ratio < _CHINCHILLA:
        return Advice("token-ratio", False, text + "below Chinchilla's 20; shrink the model")
    if ratio < _PRODUCTION:
        return Advice("token-ratio", True, text + "compute-optimal (20) up; served models take 100")
    if ratio <= _SMALL_MODELS:
        return Advice("token-ratio", True, text + "usual for models that are served (100 to 1,000)")
    return Advice("token-ratio", None, text + "past 1,000; only what is served very much repays it")


def _state(parameters: int, world: int, assumptions: Assumptions) -> Advice:
    """Rajbhandari et al. 2020 (ZeRO): 16 bytes a parameter with Adam."""
    gigabytes = _STATE_BYTES * parameters / 1e9
    fits = _STATE_BYTES * parameters <= world * assumptions.device_bytes
    text = f"16 bytes a parameter: {gigabytes:,.1f} GB of state over {world} devices"
    return Advice("state", fits, text + ("" if fits else "; use more, or a smaller model"))


def _serving(parameters: int) -> Advice:
    gigabytes = _SERVED_GB * parameters / 1e9
    return Advice("serving", None, f"about {gigabytes:,.2f} GB to serve at 4 bits (0.7 GB/B)")


def _interval(plan: ReliabilityPlan) -> Advice:
    gain = plan.daly_goodput - plan.goodput
    text = f"checkpoint.interval {plan.interval_steps} gives goodput {plan.goodput:.2%}"
    if gain < 0.001:
        return Advice("interval", True, text)
    best = f"; {plan.daly_interval_steps} would give {plan.daly_goodput:.2%}"
    return Advice("interval", False, text + best)


def _caveats(config: RunConfig) -> list[Advice]:
    found = []
    if config.nodes.device == "cpu":
        text = "nodes.deviceResource is empty: the run is for CPU, the plan for the device named"
        found.append(Advice("device", None, text))
    if config.training.precision == "float32":
        text = "precision float32: the peak is bfloat16's, so times are too short"
        found.append(Advice("precision", None, text))
    pipeline, sequences = config.parallelism.pipeline_parallel, config.training.local_batch_size
    if sequences < pipeline:
        text = f"{sequences} microbatches in {pipeline} pipeline stages leave stages idle"
        found.append(Advice("bubble", False, f"{text}; raise training.localBatchSize"))
    if pipeline > 1 and accumulation(config) > 1:
        text = "with pipelineParallel, a larger localBatchSize costs no memory beyond the stages'"
        found.append(Advice("microbatches", None, text))
    return found
