"""What checkpoints and interruptions cost a run: intervals, goodput, wall time, dollars."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pretrain_llm.contract.config import CheckpointConfig, RunConfig
from pretrain_llm.contract.intervals import SaveCost, daly_interval_seconds, interval_steps

from .assumptions import Assumptions
from .checkpoints import goodput, stall_seconds
from .compute import ComputePlan, world_size
from .memory import checkpoint_bytes, state_bytes
from .parameters import Parameters

_SECONDS_PER_HOUR = 3600.0
_EXPORT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class ReliabilityPlan:
    checkpoint_bytes: int
    export_bytes: int
    stall_seconds: float
    mtbf_seconds: float  # of the whole job
    daly_interval_seconds: float
    daly_interval_steps: int  # at least 1, at most all of the run's
    daly_goodput: float
    interval_steps: int  # the spec's, or what auto makes of it
    interval_seconds: float
    goodput: float  # at the spec's interval
    interruptions: float  # expected
    wall_seconds: float | None  # with faults and saves; None where goodput is 0


def reliability_plan(
    config: RunConfig, counts: Parameters, compute: ComputePlan, assumptions: Assumptions
) -> ReliabilityPlan:
    stall = assumptions.stall_seconds or stall_seconds(
        state_bytes(config), assumptions.staging_bytes_per_second
    )
    world = world_size(config)
    mtbf = assumptions.device_hours_per_interruption * _SECONDS_PER_HOUR / world
    daly = daly_interval_seconds(stall, mtbf)
    daly_steps = min(config.training.steps, max(1, math.floor(daly / compute.step_seconds)))
    steps = _interval_steps(config.checkpoint, stall, compute.step_seconds, mtbf)
    interval = steps * compute.step_seconds
    expected = goodput(interval, stall, assumptions.restart_seconds, mtbf)
    wall = compute.training_seconds / expected if expected > 0 else None
    return ReliabilityPlan(
        checkpoint_bytes=checkpoint_bytes(config, counts),
        export_bytes=_EXPORT_BYTES[config.export.dtype] * counts.total,
        stall_seconds=stall,
        mtbf_seconds=mtbf,
        daly_interval_seconds=daly,
        daly_interval_steps=daly_steps,
        daly_goodput=goodput(
            daly_steps * compute.step_seconds, stall, assumptions.restart_seconds, mtbf
        ),
        interval_steps=steps,
        interval_seconds=interval,
        goodput=expected,
        interruptions=compute.training_seconds / mtbf,
        wall_seconds=wall,
    )


def _interval_steps(
    policy: CheckpointConfig, stall: float, step_seconds: float, mtbf_seconds: float
) -> int:
    return interval_steps(policy, SaveCost(stall), step_seconds, mtbf_seconds)


def paid_device_hours(config: RunConfig, seconds: float) -> float:
    """Spares are paid for too."""
    slots = config.nodes.count + config.nodes.spares
    return slots * config.nodes.devices_per_node * seconds / _SECONDS_PER_HOUR
