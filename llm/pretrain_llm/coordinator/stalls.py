"""When a round whose agents all answer, but that makes no step, counts as stalled. Pure.

A step may take `factor` times the median step, and at least the floor. Where no steps come for a
good reason, another limit holds: while workers start, save a checkpoint, or close after the last
step. A save counts only for as long as steps stand still for it: its files are written beside them,
and a hang must not hide behind that. A coordinator that takes over a running round knows none of
its steps: until the next one, the round counts as starting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Patience:
    """spec.recovery.stall."""

    factor: float = 10.0  # times the median step
    floor_seconds: float = 8.0
    quiet_seconds: float = 1800.0  # start, save, end


@dataclass(frozen=True)
class Pace:
    """How a round has moved so far."""

    moved_at: float  # formed or adopted, began to save, or made its last step
    step: int | None = None  # the round's last; None: it starts
    median_step_seconds: float = 0.0  # as of that step
    saving_step: int = 0  # the newest whose save has begun
    is_last: bool = False  # the round has no further step


def stepped(
    pace: Pace, step: int, median_step_seconds: float, now: float, *, is_last: bool
) -> Pace:
    return replace(
        pace,
        moved_at=now,
        step=step,
        median_step_seconds=median_step_seconds,
        is_last=is_last,
    )


def saving(pace: Pace, step: int, now: float) -> Pace:
    """From the start of a save until a later step: reports of two ranks may overtake each other."""
    return replace(pace, moved_at=now, saving_step=max(pace.saving_step, step))


def stepping_on(pace: Pace, step: int, now: float) -> Pace:
    """The save of `step` stops the steps no longer."""
    if step < pace.saving_step:
        return pace
    return replace(pace, moved_at=now, saving_step=0)


def limit_seconds(patience: Patience, pace: Pace) -> float:
    """How long the round may stand still."""
    if pace.step is None or pace.is_last or pace.step <= pace.saving_step:
        return patience.quiet_seconds
    return max(patience.factor * pace.median_step_seconds, patience.floor_seconds)


def is_stalled(patience: Patience, pace: Pace, now: float) -> bool:
    return now > pace.moved_at + limit_seconds(patience, pace)
