"""FLOPs, time and money. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import segments, total_tokens

from .assumptions import Assumptions
from .families import family
from .parameters import Parameters
from .stages import stages

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class ComputePlan:
    """6 N D: Kaplan et al. 2020 (Scaling Laws), table 1; N without an untied input table."""

    flops: float  # 6 N D, forward and backward
    attention_flops: float  # beside it
    mfu_with_attention: float  # the assumed MFU as torchtitan counts it
    step_seconds: float  # the mean of the segments
    tokens_per_second: float
    training_seconds: float  # without faults and saves
    training_device_hours: float


def world_size(config: RunConfig) -> int:
    return config.nodes.count * config.nodes.devices_per_node


def compute_plan(config: RunConfig, counts: Parameters, assumptions: Assumptions) -> ComputePlan:
    steps, tokens = config.training.steps, total_tokens(config)
    flops = 6.0 * counts.in_matmuls * tokens
    attention = attention_flops(config)
    world = world_size(config)
    seconds = flops / (assumptions.mfu * assumptions.peak_flops * world)
    return ComputePlan(
        flops=flops,
        attention_flops=attention,
        mfu_with_attention=assumptions.mfu * (flops + attention) / flops,
        step_seconds=seconds / steps,
        tokens_per_second=tokens / seconds,
        training_seconds=seconds,
        training_device_hours=seconds * world / _SECONDS_PER_HOUR,
    )


def attention_flops(config: RunConfig) -> float:
    """Of scores and values over the run, forward and backward."""
    per_token = family(config.model.architecture).attention_flops
    return sum(
        per_token(segment.run.model, segment.run.training.sequence_length) * segment.tokens
        for segment in segments(config)
    )


def bubble_share(config: RunConfig) -> float:
    """Idle time of a pipeline over its busy time. Source: Narayanan et al. 2021, section 2.2."""
    return (len(stages(config)) - 1) / config.training.local_batch_size
