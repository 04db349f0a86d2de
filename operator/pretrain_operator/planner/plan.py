"""The plan of a run: everything that can be known before anything is applied."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import total_tokens

from ..api.spec import RunSpec
from ..config import titan_config
from ..spec_error import SpecError
from .advice import Advice, advice
from .assumptions import Assumptions
from .compute import ComputePlan, compute_plan
from .memory import MemoryPlan, accumulation, memory_plan
from .meshes import Suggestion, suggestion
from .parameters import Parameters, parameters
from .reliability import ReliabilityPlan, paid_device_hours, reliability_plan
from .segments import SegmentPlan, segment_plans
from .shrinking import SmallerRun, smaller_runs


@dataclass(frozen=True)
class RunPlan:
    config: RunConfig
    assumptions: Assumptions
    parameters: Parameters
    tokens: int
    accumulation: int
    compute: ComputePlan
    memory: MemoryPlan
    smaller: tuple[SmallerRun, ...]  # what it may shrink to, largest first
    reliability: ReliabilityPlan
    device_hours: float | None  # paid, with spares, faults and saves; None where goodput is 0
    dollars: float | None
    problems: tuple[SpecError, ...]  # legal for the API, but the run would fail
    advice: tuple[Advice, ...]
    suggestion: Suggestion | None  # asked for, and found
    segments: tuple[SegmentPlan, ...] = ()  # of a curriculum


def plan_run(
    spec: RunSpec, assumptions: Assumptions | None = None, *, suggest: bool = False
) -> RunPlan:
    """Raises SpecError for the first rule that the spec breaks."""
    given = assumptions or Assumptions()
    config = titan_config("plan", spec)  # the name is checked where the recipe is read
    counts = parameters(config.model)
    compute = compute_plan(config, counts, given)
    memory = memory_plan(config, given)
    reliability = reliability_plan(config, counts, compute, given)
    hours = None
    if reliability.wall_seconds is not None:
        hours = paid_device_hours(config, reliability.wall_seconds)
    dollars = None if hours is None else hours * given.price
    return RunPlan(
        config=config,
        assumptions=given,
        parameters=counts,
        tokens=total_tokens(config),
        accumulation=accumulation(config),
        compute=compute,
        memory=memory,
        smaller=smaller_runs(config, given),
        reliability=reliability,
        device_hours=hours,
        dollars=dollars,
        problems=_problems(config, memory, compute, given),
        advice=advice(config, counts, reliability, dollars, given),
        suggestion=suggestion(config, compute, given) if suggest else None,
        segments=segment_plans(config, counts, given),
    )


def _problems(
    config: RunConfig, memory: MemoryPlan, compute: ComputePlan, assumptions: Assumptions
) -> tuple[SpecError, ...]:
    return () if memory.fits else (_misfit(config, memory, compute, assumptions),)


def _misfit(
    config: RunConfig, memory: MemoryPlan, compute: ComputePlan, assumptions: Assumptions
) -> SpecError:
    """The remedy is the smallest change that fits: local batch, checkpointing, mesh, devices."""
    sequences = config.training.local_batch_size
    needs = f"needs {memory.total_bytes / 2**30:.1f} GiB of {memory.device_bytes / 2**30:.0f} GiB"
    remedy = f"{needs} a device; {_remedy(config, compute, assumptions)}"
    return SpecError("fits-device", "spec.training.localBatchSize", sequences, remedy)


def _remedy(config: RunConfig, compute: ComputePlan, assumptions: Assumptions) -> str:
    training = config.training
    share = training.local_batch_size * accumulation(config)
    for mode in dict.fromkeys((training.activation_checkpointing, "selective", "full")):
        for sequences in range(training.local_batch_size, 0, -1):
            if share % sequences:
                continue
            changed = replace(training, local_batch_size=sequences, activation_checkpointing=mode)
            if memory_plan(replace(config, training=changed), assumptions).fits:
                lower = "" if sequences == training.local_batch_size else f"lower it to {sequences}"
                other = mode != training.activation_checkpointing
                recompute = f"set spec.training.activationCheckpointing {mode}" if other else ""
                return " and ".join(filter(None, (lower, recompute)))
    if suggestion(config, compute, assumptions) is not None:
        return "choose another mesh: --suggest prints one that fits"
    return "no mesh of these devices fits it; add nodes, or make the model smaller"
