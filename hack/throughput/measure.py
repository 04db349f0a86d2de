"""Pure: seconds of blocks -> ratios, shares and whether the targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

RATIO_TARGET = 0.995  # our tokens a second over bare torchtitan's
LOADER_TARGET = 0.001  # of a step
MEMORY_TOLERANCE = 0.10  # of the plan

Pair = tuple[float, float]  # seconds of a block: ours, bare


@dataclass(frozen=True)
class Throughput:
    pairs: int
    ours_tokens_per_second: float  # medians
    bare_tokens_per_second: float
    ratio: float  # the median of the pairs' ratios
    quartiles: tuple[float, float]  # of them

    @property
    def meets_target(self) -> bool:
        return self.ratio >= RATIO_TARGET


def throughput(pairs: Sequence[Pair], block_tokens: int) -> Throughput:
    """A block of ours and the bare one beside it make a ratio: what slows the machine hits both.

    Raises ValueError without a pair.
    """
    if not pairs:
        raise ValueError("no pair of blocks was measured")
    ratios = sorted(bare / ours for ours, bare in pairs)
    quarter = len(ratios) // 4
    return Throughput(
        pairs=len(pairs),
        ours_tokens_per_second=block_tokens / median(ours for ours, _ in pairs),
        bare_tokens_per_second=block_tokens / median(bare for _, bare in pairs),
        ratio=median(ratios),
        quartiles=(ratios[quarter], ratios[-1 - quarter]),
    )


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
