"""What each segment of a curriculum takes: the run's own figures are sums, means and maxima."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pretrain_llm.contract import curriculum
from pretrain_llm.contract.config import RunConfig

from .assumptions import Assumptions
from .compute import ComputePlan, compute_plan
from .memory import accumulation, memory_plan
from .parameters import Parameters


@dataclass(frozen=True)
class SegmentPlan:
    from_step: int
    steps: int
    tokens: int
    sequence_length: int
    global_batch_size: int
    accumulation: int
    compute: ComputePlan
    memory_bytes: float  # of a device of the fullest stage, with the margin


def segment_plans(
    config: RunConfig, counts: Parameters, assumptions: Assumptions
) -> tuple[SegmentPlan, ...]:
    """None for a run without a curriculum."""
    if not config.training.curriculum:
        return ()
    return tuple(
        _segment_plan(segment, counts, assumptions) for segment in curriculum.segments(config)
    )


def _segment_plan(
    segment: curriculum.Segment, counts: Parameters, assumptions: Assumptions
) -> SegmentPlan:
    training, steps = segment.run.training, segment.end - segment.start
    alone = replace(segment.run, training=replace(training, steps=steps))
    return SegmentPlan(
        from_step=segment.start,
        steps=steps,
        tokens=segment.tokens,
        sequence_length=training.sequence_length,
        global_batch_size=training.global_batch_size,
        accumulation=accumulation(segment.run),
        compute=compute_plan(alone, counts, assumptions),
        memory_bytes=memory_plan(alone, assumptions).total_bytes,
    )
