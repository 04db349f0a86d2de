"""Which global batch each step trains on: a pure function of the step and of what is skipped.

A data step is the number of a global batch, from 0; which samples it has is `data_order`'s. Without
skips, the step after n finished ones takes data step n. After a loss spike the batches around it
are never trained:

    step         ... 39  40  41  42           the loss spiked in the steps of data steps 40 and 41
    data step    ... 38  39  42  43
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile


@dataclass(frozen=True)
class DataSteps:
    """From `first` up to, but not including `end`."""

    first: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.end:
            raise ValueError(f"data steps {self.first} to {self.end} are none")


@dataclass(frozen=True)
class SkippedData:
    """One entry a rollback, in their order; only ever longer, so of two the longer is newer."""

    ranges: tuple[DataSteps, ...] = ()

    def with_rollback(self, skipped: DataSteps) -> SkippedData:
        return SkippedData((*self.ranges, skipped))

    def newer(self, other: SkippedData) -> SkippedData:
        return other if len(other.ranges) > len(self.ranges) else self

    def data_step(self, finished_steps: int) -> int:
        """What the step after `finished_steps` finished ones trains on."""
        data_step = finished_steps
        for skipped in _merged(self.ranges):
            if skipped.first > data_step:
                break
            data_step += skipped.end - skipped.first
        return data_step

    def steps(self, batches: DataSteps) -> range:
        """Those that train on them, each told by how many are finished before it."""
        return range(self._steps_before(batches.first), self._steps_before(batches.end))

    def _steps_before(self, data_step: int) -> int:
        return data_step - sum(
            min(skipped.end, data_step) - skipped.first
            for skipped in _merged(self.ranges)
            if skipped.first < data_step
        )

    def passed(self, finished_steps: int) -> tuple[DataSteps, ...]:
        """What was skipped by the time that so many steps were finished."""
        if finished_steps == 0:
            return ()
        last = self.data_step(finished_steps - 1)
        return tuple(takewhile(lambda skipped: skipped.first < last, _merged(self.ranges)))

    def agrees(self, other: SkippedData, finished_steps: int) -> bool:
        """Whether so many steps trained on the same data under both."""
        return self.passed(finished_steps) == other.passed(finished_steps)


def _merged(ranges: Iterable[DataSteps]) -> list[DataSteps]:
    """In order of the data, without overlaps and neighbours."""
    merged: list[DataSteps] = []
    for item in sorted(ranges, key=lambda item: (item.first, item.end)):
        if merged and item.first <= merged[-1].end:
            merged[-1] = DataSteps(merged[-1].first, max(merged[-1].end, item.end))
        else:
            merged.append(item)
    return merged
