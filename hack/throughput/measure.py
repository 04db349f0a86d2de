"""Pure: what blocks took -> ratios, shares and whether the targets are met."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

RATIO_TARGET = 0.995  # our tokens a second over bare torchtitan's
LOADER_TARGET = 0.001  # of a step
MEMORY_TOLERANCE = 0.10  # of the plan


@dataclass(frozen=True)
class Block:
    seconds: float
    processor_seconds: float  # of all threads


Pair = tuple[Block, Block]  # ours, bare


@dataclass(frozen=True)
class Ratio:
    """Of what bare torchtitan takes over what ours does."""

    mean: float  # of the starts'
    standard_error: float  # of that mean


@dataclass(frozen=True)
class Throughput:
    starts: int
    pairs: int
    ours_tokens_per_second: float  # medians
    bare_tokens_per_second: float
    ratio: Ratio  # of seconds
    processor_ratio: Ratio  # of processor time: what others do on the machine is not in it

    @property
    def meets_target(self) -> bool:
        return self.ratio.mean >= RATIO_TARGET


def throughput(starts: Sequence[Sequence[Pair]], block_tokens: int) -> Throughput:
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
        ours_tokens_per_second=block_tokens / median(ours.seconds for ours, _ in pairs),
        bare_tokens_per_second=block_tokens / median(bare.seconds for _, bare in pairs),
        ratio=_ratio(starts, lambda block: block.seconds),
        processor_ratio=_ratio(starts, lambda block: block.processor_seconds),
    )


def _ratio(starts: Sequence[Sequence[Pair]], taken: Callable[[Block], float]) -> Ratio:
    ratios = [median(taken(bare) / taken(ours) for ours, bare in pairs) for pairs in starts]
    return Ratio(fmean(ratios), stdev(ratios) / math.sqrt(len(ratios)))


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
