"""How long this rank computes by itself, where it waits for nobody: what tells a slow rank.

With synchronous training every rank's step takes as long as the slowest rank's. But between the
hooks of FSDP2, which wait for weights before a block's forward pass and let go of them after it, a
block computes on its own. The mean of these times is comparable between all ranks, also of pipeline
stages with other numbers of blocks. Ranks of one tensor- or context-parallel group wait for each
other inside blocks: a slow one slows its group, and all of them are named.

Not measured where blocks are compiled: torchtitan compiles them with fullgraph, and a clock in
between would break the graph. CUDA's events are read after the step's loss has been, so that
reading them does not wait; there they were never tried.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from typing import Any, Protocol

import torch

REPORTED_STEPS = 10  # one report each


class Mark(Protocol):
    """A point in time on the device."""

    def seconds_until(self, later: Any) -> float: ...


class CpuMark:
    def __init__(self) -> None:
        self._at = time.perf_counter()

    def seconds_until(self, later: CpuMark) -> float:
        return later._at - self._at


class CudaMark:
    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def seconds_until(self, later: CudaMark) -> float:
        later._event.synchronize()
        milliseconds: float = self._event.elapsed_time(later._event)
        return milliseconds / 1000.0


class OwnTime:
    """Of one worker; `stepped` is called after each step."""

    def __init__(self, blocks: Iterable[torch.nn.Module], device: str) -> None:
        self._mark = CudaMark if device == "cuda" else CpuMark
        self._spans: list[tuple[Mark, Mark]] = []
        self._step_seconds: list[float] = []
        self._begun: Mark | None = None
        for block in blocks:
            # After FSDP's own hook before the block, and before its own hook after it.
            block.register_forward_pre_hook(self._enter)
            block.register_forward_hook(self._leave, prepend=True)

    def _enter(self, *_: object) -> None:
        self._begun = self._mark()

    def _leave(self, *_: object) -> None:
        if self._begun is not None:
            self._spans.append((self._begun, self._mark()))
            self._begun = None

    def stepped(self) -> float | None:
        """Median over the last steps of a block's mean time, in seconds, every REPORTED_STEPS."""
        if self._spans:
            seconds = [begun.seconds_until(ended) for begun, ended in self._spans]
            self._step_seconds.append(statistics.fmean(seconds))
            self._spans.clear()
        if len(self._step_seconds) < REPORTED_STEPS:
            return None
        median = statistics.median(self._step_seconds)
        self._step_seconds.clear()
        return median
