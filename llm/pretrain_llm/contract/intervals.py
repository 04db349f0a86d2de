"""How often to save, from what a save costs and how often a run is interrupted. Pure arithmetic.

The planner asks before a run, the coordinator while it runs: one rule for both.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from .config import CheckpointConfig

# Meta, Llama 3.1 405B: 466 interruptions in 54 days on 16,384 GPUs (The Llama 3 Herd of Models,
# section 3.3.4): 45,566 device-hours. A best case for other clusters; says nothing about spot.
DEVICE_HOURS_PER_INTERRUPTION = 16_384 * 54 * 24 / 466
# What the prior is worth, in interruptions. Clusters differ by a factor of 700 (64 device-hours in
# TorchPass' case), so the first one that a run sees outweighs it.
PRIOR_INTERRUPTIONS = 0.1
MAX_STALL_SHARE = 0.02  # of the time between two saves that training may stand still for one
_LEAST_COST_SECONDS = 1e-3


@dataclass(frozen=True)
class SaveCost:
    """What one save takes of training."""

    stall_seconds: float  # training stands still
    dip_seconds: float = 0.0  # the next steps take longer, by so much together
    save_seconds: float = 0.0  # from its start until its manifest is written


def daly_interval_seconds(stall_seconds: float, mtbf_seconds: float) -> float:
    """Time between checkpoints that loses least.

    Source: Daly 2006 (A higher order estimate of the optimum checkpoint interval), eq. 37. Raises
    ValueError unless both are positive.
    """
    if not (stall_seconds > 0 and mtbf_seconds > 0):
        raise ValueError(f"stall {stall_seconds} s and MTBF {mtbf_seconds} s must be positive")
    if stall_seconds >= 2 * mtbf_seconds:
        return mtbf_seconds
    ratio = stall_seconds / (2 * mtbf_seconds)
    series = 1 + math.sqrt(ratio) / 3 + ratio / 9
    return math.sqrt(2 * stall_seconds * mtbf_seconds) * series - stall_seconds


def device_hours_per_interruption(interruptions: int, device_hours: float) -> float:
    """After what a run has seen: `interruptions` in so many hours of its devices.

    Interruptions are a Poisson process whose rate has a Gamma prior of shape PRIOR_INTERRUPTIONS
    and mean 1 / DEVICE_HOURS_PER_INTERRUPTION; this is one over the posterior's mean. Never more
    than the prior: no run has been published that did better, and quiet hours are soon over.
    """
    shape = PRIOR_INTERRUPTIONS + interruptions
    hours = PRIOR_INTERRUPTIONS * DEVICE_HOURS_PER_INTERRUPTION + device_hours
    return min(DEVICE_HOURS_PER_INTERRUPTION, hours / shape)


def interval_steps(
    policy: CheckpointConfig, cost: SaveCost | None, step_seconds: float, mtbf_seconds: float
) -> int:
    """Steps between two saves: the spec's number, or with auto Daly's, within the spec's bounds.

    No shorter than a save takes, nor so short that saves stall training by more than
    MAX_STALL_SHARE. While no cost is known the shortest, so that it soon is.
    """
    if policy.interval is not None:
        return policy.interval
    if cost is None or step_seconds <= 0:
        return policy.min_interval
    lost_seconds = max(_LEAST_COST_SECONDS, cost.stall_seconds + cost.dip_seconds)
    steps = max(
        math.floor(daly_interval_seconds(lost_seconds, mtbf_seconds) / step_seconds),
        math.ceil(cost.stall_seconds / MAX_STALL_SHARE / step_seconds),
        math.ceil(cost.save_seconds / step_seconds),
    )
    return min(policy.max_interval, max(policy.min_interval, steps))


@dataclass(frozen=True)
class Cadence:
    """How often a run saves, and from what that was decided."""

    interval_steps: int = 0  # 0: not decided
    step_seconds: float = 0.0  # median at the decision; 0: no step yet
    mtbf_seconds: float = 0.0  # of the whole job
    interruptions: int = 0  # that took workers down unasked
    stepped_seconds: float = 0.0  # time at risk: of all steps made
    costs: tuple[SaveCost, ...] = ()  # of the newest saves, oldest first

    @property
    def cost(self) -> SaveCost | None:
        """The usual one of a save: medians, since a dip is a small difference of noisy times."""
        if not self.costs:
            return None
        return SaveCost(
            statistics.median(cost.stall_seconds for cost in self.costs),
            max(0.0, statistics.median(cost.dip_seconds for cost in self.costs)),
            statistics.median(cost.save_seconds for cost in self.costs),
        )

    @property
    def stall_share(self) -> float | None:
        """Of the time between two saves that training stands still; to be at most MAX_STALL_SHARE.

        None where it is not known.
        """
        between_seconds = self.interval_steps * self.step_seconds
        if self.cost is None or between_seconds <= 0:
            return None
        return self.cost.stall_seconds / between_seconds
