"""Where in its data order a step's samples begin: a pure function of the step, of the curriculum
and of what is skipped.

Segments that share an order go on where the one before has ended, whatever its batches' size. What
a rollback skips is known by the samples that the undone steps had trained, each in its own
segment's order: no batch has any of them again, and none is left out beside them but what is too
little for a batch in front of them.

    steps       98     99     100  | 101        batches of 8, then of 16, in one order
    samples     776..  784..  792..  800..816
    again       776..  816..  824..  832..848   after steps 99 to 101 were undone
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .curriculum import Segment
from .data_steps import SkippedData


@dataclass(frozen=True)
class Stretch:
    """Samples of a data order, from `first` up to, but not including, `end`."""

    order: int
    first: int
    end: int


class DataOrder:
    """Of a run with these segments, all of them, under these skips."""

    def __init__(self, segments: tuple[Segment, ...], skipped: SkippedData) -> None:
        self._segments = segments
        self._left_out: list[Stretch] = []
        for number, batches in enumerate(skipped.ranges):
            undone = SkippedData(skipped.ranges[:number]).steps(batches)
            self._left_out += list(self._trained(undone))
            self._left_out.sort(key=lambda stretch: stretch.first)

    def first_sample(self, segment: Segment, finished_steps: int) -> int:
        """Of the global batch of the step after so many finished ones, in this segment's order.

        Past the segment's end, as if it went on.
        """
        cursor = 0
        for earlier in self._segments[: segment.number]:
            if earlier.order == segment.order:
                cursor = self._after(earlier, cursor, earlier.end - earlier.start)
        end = self._after(segment, cursor, finished_steps + 1 - segment.start)
        return end - segment.run.training.global_batch_size

    def _after(self, segment: Segment, cursor: int, batches: int) -> int:
        """Where so many batches of a segment end; the first begins at `cursor` or later."""
        size = segment.run.training.global_batch_size
        for stretch in self._left_out:
            if stretch.order != segment.order:
                continue
            fitting = max(stretch.first - cursor, 0) // size
            if batches <= fitting:
                break
            batches -= fitting
            cursor = max(cursor, stretch.end)
        return cursor + batches * size

    def _trained(self, undone: range) -> Iterator[Stretch]:
        """Samples of steps, each told by how many are finished before it; by the skips so far."""
        for segment in self._segments:
            steps = range(max(undone.start, segment.start), min(undone.stop, segment.end))
            if steps:
                first, last = (self.first_sample(segment, step) for step in (steps[0], steps[-1]))
                end = last + segment.run.training.global_batch_size
                yield Stretch(segment.order, first, end)
