"""What is simulated: Meta's Llama 3 run, a published benchmark, any recipe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..api.spec import RunSpec
from ..planner import Assumptions, Recipe, plan_run
from ..spec_error import SpecError
from . import trace
from .durations import SOURCES, Durations
from .trace import Fault

_SECONDS_PER_DAY = 86_400.0
# make bench-memory, on two CPU cores and over loopback; a node's agent is one process
_WRITTEN_BYTES_PER_SECOND = 1.8e9  # by a worker, into the tmpfs
_READ_BYTES_PER_SECOND = 0.85e9  # by a worker: checksum, and copy
_COPIED_BYTES_PER_SECOND = 0.37e9  # by a node's agent: hashed, sent, verified at the other end
_RATES = "a checkpoint's bytes, {}: make bench-memory, measured on CPU and loopback"
_MEMORY_SOURCES = {
    "memory_stall_seconds": _RATES.format("1.8 GB/s a worker"),
    "memory_copy_seconds": _RATES.format("0.37 GB/s a node"),
    "memory_load_seconds": _RATES.format("0.85 GB/s a worker"),
    "memory_fetch_seconds": _RATES.format("0.37 GB/s a node"),
}


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    spec: RunSpec
    durations: Durations
    total_steps: int
    horizon_seconds: float
    mtbf_seconds: float  # of the job, for Daly
    drawn: Callable[[int], tuple[Fault, ...]]  # a trace, from a seed
    published: tuple[str, ...] = ()  # to hold the result against
    sources: Mapping[str, str] = field(default_factory=dict)  # where they differ from SOURCES
    remarks: tuple[str, ...] = ()

    def source(self, name: str) -> str:
        return self.sources.get(name, SOURCES[name][1])


def llama3() -> Scenario:
    nodes, horizon = 2048, 54 * _SECONDS_PER_DAY
    spec = RunSpec.model_validate(_LLAMA3)
    planned = plan_run(spec, Assumptions(mfu=0.41))
    return Scenario(
        name="llama3",
        title="Llama 3 405B: 16,384 GPUs, 54 days, 466 interruptions by Meta's classes",
        spec=spec,
        durations=Durations(
            step_seconds=planned.compute.step_seconds,
            stall_seconds=planned.reliability.stall_seconds,
            save_seconds=595.0,
            communicator_seconds=30.0,
            **_in_memory(planned.reliability.checkpoint_bytes, spec),
        ),
        total_steps=planned.config.training.steps,
        horizon_seconds=horizon,
        mtbf_seconds=horizon / 466,
        drawn=lambda seed: trace.llama3(seed, nodes, horizon),
        published=(
            "Llama 3: more than 90 % (arXiv:2407.21783)",
            "ByteRobust: 97 % on 9,600 GPUs (arXiv:2509.16293)",
        ),
        sources={
            "step_seconds": "the planner: 6ND at MFU 0.41 (arXiv:2407.21783, table 4)",
            "save_seconds": "arXiv:2605.23066: DCP saves 405B in 595 s (published)",
            "communicator_seconds": (
                "MegaScale (arXiv:2402.15627): under 30 s over 10,000 GPUs (published)"
            ),
            **_MEMORY_SOURCES,
        },
        remarks=("Spares: 4 nodes. Silent data corruption counts as seen at once.",),
    )


def scout() -> Scenario:
    gap, horizon = (2700.0, 4500.0), 30 * _SECONDS_PER_DAY
    spec = RunSpec.model_validate(_SCOUT)
    return Scenario(
        name="scout",
        title="Scout-109B case: 64 GPUs, a node lost every 45-75 min, 3,000 steps",
        spec=spec,
        durations=Durations(
            step_seconds=7.84,
            checkpoint_steps=100,
            save_seconds=595.0 * 109 / 405,
            load_seconds=169.0 * 109 / 405,
            **_in_memory(12 * 109e9, spec),  # float32: weight and two moments
        ),
        total_steps=3000,
        horizon_seconds=horizon,
        mtbf_seconds=sum(gap) / 2,
        drawn=lambda seed: trace.spaced(seed, 8, horizon, "NodeLost", gap),
        published=(
            "TorchPass 405 min, checkpoint-restart 818 min, TorchFT 930 min"
            " (clockwork.io, the vendor's own benchmark)",
        ),
        sources={
            "step_seconds": (
                "inferred: TorchPass' 405 min less 6.5 recoveries of 2 min, over 3,000 steps;"
                " the undisturbed time was not found"
            ),
            "checkpoint_steps": "the benchmark's",
            "save_seconds": "arXiv:2605.23066: DCP, 595 s for 405B, scaled by parameters",
            "load_seconds": "arXiv:2605.23066: DCP, 169 s for 405B, scaled by parameters",
            **_MEMORY_SOURCES,
        },
        remarks=(
            "The benchmark's kind of failure was not found: each loses a whole node. One spare.",
            "The manifest describes a dense stand-in; its shapes decide nothing here.",
        ),
    )


def of_recipe(recipe: Recipe, assumptions: Assumptions | None = None) -> Scenario:
    """Raises SpecError for the first rule that the spec breaks, and where it runs a script."""
    spec = recipe.spec
    if not isinstance(spec, RunSpec):
        remedy = "its step time and what its saves cost are not known; simulate a run of a model"
        raise SpecError("simulated-model", "spec.script", "is set", remedy)
    planned = plan_run(spec, assumptions)
    found, nodes, memory = planned.reliability, spec.nodes.count, spec.checkpoint.memory
    # A run that takes ten times as long as it should does not end.
    horizon = 10 * planned.compute.training_seconds + _SECONDS_PER_DAY
    return Scenario(
        name=recipe.name,
        title=f"{recipe.name}: {nodes} nodes, faults by the planner's rate and Meta's classes",
        spec=spec.model_copy(update={"suspend": False}),  # it would wait for ever
        durations=Durations(
            step_seconds=planned.compute.step_seconds,
            checkpoint_steps=found.interval_steps,
            stall_seconds=found.stall_seconds,
            memory_steps=memory.interval if memory else None,
            **_in_memory(found.checkpoint_bytes, spec),
        ),
        total_steps=planned.config.training.steps,
        horizon_seconds=horizon,
        mtbf_seconds=found.mtbf_seconds,
        drawn=lambda seed: trace.by_shares(seed, nodes, horizon, found.mtbf_seconds),
        sources={"checkpoint_steps": "the recipe's", "memory_steps": "the recipe's"}
        | _MEMORY_SOURCES,
    )


def _in_memory(checkpoint_bytes: float, spec: RunSpec) -> dict[str, Any]:
    """What saves in memory take, of a node's share of a checkpoint."""
    node_bytes = checkpoint_bytes / spec.nodes.count
    device_bytes = node_bytes / spec.nodes.devices_per_node
    return {
        "memory_stall_seconds": device_bytes / _WRITTEN_BYTES_PER_SECOND,
        "memory_copy_seconds": node_bytes / _COPIED_BYTES_PER_SECOND,
        "memory_load_seconds": device_bytes / _READ_BYTES_PER_SECOND,
        "memory_fetch_seconds": node_bytes / _COPIED_BYTES_PER_SECOND,
    }


def _spec(**parts: Any) -> dict[str, Any]:
    common = {
        "storage": {"claimName": "runs"},
        "tokenizer": {"path": "tokenizer"},
        "data": {"sources": [{"name": "text", "path": "text.jsonl"}]},
    }
    return {**common, **parts}


# The Llama 3 Herd of Models, tables 3 and 4: 16,384 GPUs, TP 8, PP 16, DP 128, 16M tokens a step.
_LLAMA3 = _spec(
    model={
        "architecture": "llama",
        "dim": 16384,
        "numLayers": 126,
        "numHeads": 128,
        "numKVHeads": 8,
        "ffnHiddenDim": 53248,
        "vocabSize": 128256,
        "ropeTheta": 500000.0,
    },
    training={
        "sequenceLength": 8192,
        "globalBatchSize": 2048,
        "localBatchSize": 16,
        "tokens": 15.6e12,
        "optimizer": {"learningRate": 8.0e-5},
    },
    nodes={"count": 2048, "devicesPerNode": 8, "spares": 4},
    parallelism={"tensorParallel": 8, "pipelineParallel": 16},
)
_SCOUT = _spec(
    model={
        "architecture": "llama",
        "dim": 5120,
        "numLayers": 48,
        "numHeads": 40,
        "numKVHeads": 8,
        "ffnHiddenDim": 8192,
        "vocabSize": 202048,
    },
    training={
        "sequenceLength": 8192,
        "globalBatchSize": 64,
        "steps": 3000,
        "optimizer": {"learningRate": 4.0e-3},
    },
    nodes={"count": 8, "devicesPerNode": 8, "spares": 1},
    checkpoint={"interval": 100},
)
