"""The segments of a run, and how much it has consumed at a step: pure functions of the RunConfig.

A segment is a stretch of steps of one configuration. What it leaves out is as in the one before.

    steps       1 ......... 600 601 ........ 800 801 .... 1000
    segment     0               1                2
    schedule    0 ............................ | 1              begun by a rate or a schedule
    data order  0 ........... | 1                               begun by weights, a length or a seed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

from .config import (
    AnyConfig,
    DataConfig,
    OptimizerConfig,
    RunConfig,
    ScriptRunConfig,
    SegmentConfig,
    TrainingConfig,
)


@dataclass(frozen=True)
class Consumed:
    """Since the run's first step."""

    samples: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Segment:
    """Steps `start` + 1 to `end`, counted from 1."""

    run: RunConfig  # with the values of this segment, and no curriculum
    number: int
    start: int
    end: int
    before: Consumed  # by all the segments before
    schedule_start: int
    schedule_end: int
    order: int  # data orders that were begun before this one's: `data_order`
    resets_optimizer: bool = False

    @property
    def tokens(self) -> int:
        return self.consumed(self.end).tokens - self.before.tokens

    def consumed(self, step: int) -> Consumed:
        """When so many steps are finished; exact from `start` to `end`."""
        steps = step - self.start
        return Consumed(
            samples=self.before.samples + steps * self.run.training.global_batch_size,
            tokens=self.before.tokens + steps * self.run.tokens_per_step,
        )

    def has_next(self, finished_steps: int) -> bool:
        """Whether the step after so many is trained in this one; past the end, in the last."""
        is_last = self.end >= self.run.training.steps
        return self.start <= finished_steps and (finished_steps < self.end or is_last)

    def forgets_at(self, step: int) -> bool:
        """Whether the optimiser's state of a checkpoint of this step is the segment before's, and
        is not gone on with."""
        return self.resets_optimizer and step == self.start


def segments(run: RunConfig) -> tuple[Segment, ...]:
    """In their order; a run without a curriculum is one segment."""
    found = list(accumulate(run.training.curriculum, _next, initial=_whole(run)))
    ends = [later.start for later in found[1:]]
    found = [
        replace(segment, end=end)
        for segment, end in zip(found, (*ends, run.training.steps), strict=True)
    ]
    return tuple(replace(segment, schedule_end=_schedule_end(segment, found)) for segment in found)


def segment_of(run: RunConfig, step: int) -> Segment:
    """The one that a step, counted from 1, is trained in; steps past the end are of the last."""
    reached = [segment for segment in segments(run) if segment.start < step]
    return reached[-1] if reached else segments(run)[0]


def total_tokens(run: RunConfig) -> int:
    return segments(run)[-1].consumed(run.training.steps).tokens


def boundaries(run: AnyConfig) -> tuple[int, ...]:
    """Steps after which another segment begins. A script's steps are all alike."""
    if isinstance(run, ScriptRunConfig):
        return ()
    return tuple(segment.end for segment, _ in pairwise(segments(run)))


def _whole(run: RunConfig) -> Segment:
    return Segment(
        run=replace(run, training=replace(run.training, curriculum=())),
        number=0,
        start=0,
        end=run.training.steps,
        before=Consumed(),
        schedule_start=0,
        schedule_end=run.training.steps,
        order=0,
    )


def _next(segment: Segment, changes: SegmentConfig) -> Segment:
    start, run = changes.from_step, _changed(segment.run, changes)
    before = segment.consumed(start)
    begins_schedule = changes.learning_rate is not None or changes.schedule is not None
    length, previous = run.training.sequence_length, segment.run.training.sequence_length
    begins_order = bool(changes.weights) or changes.seed is not None or length != previous
    return replace(
        segment,
        run=run,
        number=segment.number + 1,
        start=start,
        before=before,
        schedule_start=start if begins_schedule else segment.schedule_start,
        order=segment.order + begins_order,
        resets_optimizer=bool(changes.reset_optimizer),
    )


def _schedule_end(segment: Segment, everyone: list[Segment]) -> int:
    return max(each.end for each in everyone if each.schedule_start == segment.schedule_start)


def _changed(run: RunConfig, changes: SegmentConfig) -> RunConfig:
    theta = changes.rope_theta
    return replace(
        run,
        model=run.model if theta is None else replace(run.model, rope_theta=theta),
        data=_data(run.data, changes),
        training=_training(run.training, changes),
    )


def _training(training: TrainingConfig, changes: SegmentConfig) -> TrainingConfig:
    names = ("sequence_length", "global_batch_size", "local_batch_size", "schedule", "seed")
    given: dict[str, Any] = {
        name: value for name in names if (value := getattr(changes, name)) is not None
    }
    if changes.learning_rate is not None:
        # The form of the schedule goes on, its length was that of the stretch before.
        given.setdefault("schedule", replace(training.schedule, steps=None))
        given["optimizer"] = _with_rate(training.optimizer, changes.learning_rate)
    return replace(training, **given)


def _with_rate(optimizer: OptimizerConfig, rate: float) -> OptimizerConfig:
    """Rates that some parameters have of their own change in proportion."""
    names = (
        "adamw_learning_rate",
        "embedding_learning_rate",
        "output_learning_rate",
        "scalar_learning_rate",
    )
    factor = rate / optimizer.learning_rate
    own = {
        name: value * factor for name in names if (value := getattr(optimizer, name)) is not None
    }
    return replace(optimizer, learning_rate=rate, **own)


def _data(data: DataConfig, changes: SegmentConfig) -> DataConfig:
    """Sources that are not named have no weight: they are not read."""
    if not changes.weights:
        return data
    weights = {entry.name: entry.weight for entry in changes.weights}
    sources = (replace(source, weight=weights.get(source.name, 0.0)) for source in data.sources)
    return replace(data, sources=tuple(sources))
