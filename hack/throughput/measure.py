"""Pure: what blocks took -> ratios, shares and whether the targets are met."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

RATIO_TARGET = 0.995  # our tokens a second over bare torchtitan's
LOADER_TARGET = 0.001  # of a step
MEMORY_TOLERANCE = 0.10  # of the plan


Pair = tuple[float, float]  # seconds of a block: ours, bare


@dataclass(frozen=True)
class Estimate:
    mean: float  # of the starts'
    standard_error: float  # of that mean


@dataclass(frozen=True)
class Throughput:
    starts: int
    pairs: int
    ours_tokens_per_second: float  # medians
    bare_tokens_per_second: float
    ratio: Estimate  # of tokens a second
    cost_seconds: Estimate  # what a step of ours takes beyond a bare one

    @property
    def meets_target(self) -> bool:
        return self.ratio.mean >= RATIO_TARGET


def throughput(
    starts: Sequence[Sequence[Pair]], block_tokens: int, block_steps: int = 1
) -> Throughput:
    """A block of ours and the bare one beside it make a ratio: what slows the machine hits both.

    The median of these is a start's. Starts of one program differ more than its steps do, so that
    more pairs without more starts tell nothing new. Raises ValueError with less than two starts.
    """
    if len(starts) < 2:
        raise ValueError(f"a spread needs two starts or more, there were {len(starts)}")
    pairs = [pair for own in starts for pair in own]
    return Throughput(
        starts=len(starts),
        pairs=len(pairs),
        ours_tokens_per_second=block_tokens / median(ours for ours, _ in pairs),
        bare_tokens_per_second=block_tokens / median(bare for _, bare in pairs),
        ratio=_estimate(starts, lambda ours, bare: bare / ours),
        cost_seconds=_estimate(starts, lambda ours, bare: (ours - bare) / block_steps),
    )


def _estimate(
    starts: Iterable[Iterable[Pair]], compared: Callable[[float, float], float]
) -> Estimate:
    own = [median(compared(ours, bare) for ours, bare in pairs) for pairs in starts]
    return Estimate(fmean(own), stdev(own) / math.sqrt(len(own)))


@dataclass(frozen=True)
class StepCost:
    """What ours costs a step, found with short ones, held against a step of usual length."""

    case: str
    cost_seconds: Estimate
    step_seconds: float  # bare

    @property
    def ratio(self) -> Estimate:
        """Of tokens a second."""
        taken = self.step_seconds + self.cost_seconds.mean
        return Estimate(self.step_seconds / taken, self.cost_seconds.standard_error / taken)

    @property
    def meets_target(self) -> bool:
        return self.ratio.mean >= RATIO_TARGET


def mfu(tokens_per_second: float, flops_per_token: float, peak_flops: float) -> float:
    """As torchtitan counts it, with attention."""
    return tokens_per_second * flops_per_token / peak_flops


@dataclass(frozen=True)
class LoaderShare:
    recipe: str
    rank_tokens: int  # a step
    step_seconds: float  # planned
    read_seconds: float  # processor time of reading a rank's batches
    wait_seconds: float  # median of what a step waits for them

    @property
    def share(self) -> float:
        return self.wait_seconds / self.step_seconds

    @property
    def meets_target(self) -> bool:
        return self.share < LOADER_TARGET


@dataclass(frozen=True)
class Memory:
    peak_bytes: float
    planned_bytes: float

    @property
    def meets_target(self) -> bool:
        return abs(self.peak_bytes / self.planned_bytes - 1) <= MEMORY_TOLERANCE
