"""What the steps say: the newest loss, the median step time, and whether replayed steps agree.

Pure. Losses of the newest KEPT_LOSSES steps are held; a replay that goes further back than that
is counted only where it overlaps.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..contract.data_steps import SkippedData
from ..contract.protocol import Carried
from ..contract.reports import SavedReport, StepReport
from ..contract.status import FirstStep, Progress, Replay

KEPT_LOSSES = 10_000
KEPT_DURATIONS = 51


@dataclass(frozen=True)
class Trained:
    losses: Mapping[int, float] = field(default_factory=dict)  # by step; never changed in place
    step_seconds: tuple[float, ...] = ()  # of the newest steps
    first: StepReport | None = None  # of all that this coordinator heard of
    latest: StepReport | None = None
    initial_loss: float | None = None
    highest_step: int = 0
    replay: Replay = field(default_factory=Replay)
    stall_seconds: float = 0.0  # of all saves


def stepped(trained: Trained, step: StepReport) -> Trained:
    losses = {**trained.losses, step.step: step.loss}
    if len(losses) > KEPT_LOSSES:
        del losses[min(losses)]
    is_replayed = step.step in trained.losses
    return replace(
        trained,
        losses=losses,
        step_seconds=(*trained.step_seconds, step.seconds)[-KEPT_DURATIONS:],
        first=trained.first or step,
        latest=step,
        initial_loss=step.loss if trained.initial_loss is None else trained.initial_loss,
        highest_step=max(trained.highest_step, step.step),
        replay=_replayed(trained, step) if is_replayed else trained.replay,
    )


def saved(trained: Trained, report: SavedReport, total_steps: int) -> Trained:
    """No step waits for the save after the last one."""
    if report.step >= total_steps:
        return trained
    return replace(trained, stall_seconds=trained.stall_seconds + report.stall_seconds)


def reminded(trained: Trained, carried: Carried) -> Trained:
    """With what an agent remembers from the coordinator before this one."""
    trained = replace(trained, stall_seconds=max(trained.stall_seconds, carried.stall_seconds))
    if carried.initial_loss is None or carried.replay.steps < trained.replay.steps:
        return trained
    return replace(
        trained,
        initial_loss=carried.initial_loss,
        replay=max(trained.replay, carried.replay, key=lambda r: (r.steps, r.max_loss_difference)),
        highest_step=max(trained.highest_step, carried.highest_step),
        latest=trained.latest or carried.latest_step,
    )


def carried(trained: Trained, checkpoint: SavedReport | None, skipped: SkippedData) -> Carried:
    return Carried(
        initial_loss=trained.initial_loss,
        highest_step=trained.highest_step,
        replay=trained.replay,
        latest_step=trained.latest,
        latest_checkpoint=checkpoint,
        stall_seconds=trained.stall_seconds,
        skipped=skipped,
    )


def rolled_back(trained: Trained, first: int) -> Trained:
    """From step `first` on other data will be trained: those losses are none to compare with."""
    losses = {step: loss for step, loss in trained.losses.items() if step < first}
    return replace(trained, losses=losses)


def first_step(trained: Trained) -> FirstStep | None:
    return FirstStep(trained.first.step, trained.first.time) if trained.first else None


def median_step_seconds(trained: Trained) -> float:
    """Of the newest steps; 0 before the first."""
    return statistics.median(trained.step_seconds or (0.0,))


def progress(trained: Trained, total_steps: int) -> Progress | None:
    step = trained.latest
    if step is None or trained.initial_loss is None:
        return None
    return Progress(
        step=step.step,
        total_steps=total_steps,
        loss=step.loss,
        initial_loss=trained.initial_loss,
        tokens=step.tokens,
        tokens_per_second=step.tokens_per_second,
        step_seconds=statistics.median(trained.step_seconds or (step.seconds,)),
        time=step.time,
        mfu=step.mfu,
    )


def _replayed(trained: Trained, step: StepReport) -> Replay:
    difference = _difference(trained.losses[step.step], step.loss)
    return Replay(
        steps=trained.replay.steps + 1,
        max_loss_difference=max(trained.replay.max_loss_difference, difference),
    )


def _difference(first: float, second: float) -> float:
    """Absolute difference; the same non-number twice is equal, a new one is infinitely far."""
    if math.isfinite(first) and math.isfinite(second):
        return abs(first - second)
    same = first == second or (math.isnan(first) and math.isnan(second))
    return 0.0 if same else math.inf
