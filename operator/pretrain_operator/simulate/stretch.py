"""How far undisturbed training has come at a time. Closed form: no step is simulated. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUNDING = 1e-6  # of a step: a step that ends now is finished


@dataclass(frozen=True)
class Position:
    step: int  # the newest finished
    saved_step: int  # of the newest complete checkpoint
    stalled_seconds: float  # in saves, so far
    memory_step: int | None = None  # of the newest that all nodes have in memory
    copied_step: int | None = None  # of the newest that the next node has, too


@dataclass(frozen=True)
class Stretch:
    """Training from `resumed_step` on, since `since`, with a save at each multiple of `interval`.

        |--steps--|stall|--steps--|stall|--…

    A save is complete `save_seconds` after its stall has begun, and the next begins no sooner:
    where that takes longer than the steps between them, training waits, here as a longer stall.
    What saves in memory stall is spread over the steps.
    """

    since: float
    resumed_step: int
    saved_step: int  # what it resumed from
    step_seconds: float
    interval_steps: int
    stall_seconds: float
    save_seconds: float
    memory_steps: int | None = None  # between two saves in memory that are made
    memory_stall_seconds: float = 0.0
    memory_copy_seconds: float = 0.0
    is_from_memory: bool = False  # then what it resumed from is still there

    def position(self, now: float) -> Position:
        elapsed = max(0.0, now - self.since)
        stepped = elapsed - self._stalled(elapsed)
        complete = self._saves(elapsed - max(self.stall_seconds, self.save_seconds))
        return Position(
            self._step(elapsed),
            self._step_of(complete) if complete else self.saved_step,
            elapsed - stepped * self.step_seconds / self._pace_seconds,
            self._in_memory(elapsed),
            self._in_memory(elapsed - self.memory_copy_seconds),
        )

    def ends_at(self, total_steps: int) -> float:
        """When the last step is finished."""
        missing = total_steps - self.resumed_step
        saves = max(0, math.ceil((missing - self._first) / self.interval_steps))
        return self.since + missing * self._pace_seconds + saves * self._pause_seconds

    @property
    def _pace_seconds(self) -> float:
        """A step, with its share of what saves in memory stall."""
        stall = self.memory_stall_seconds / self.memory_steps if self.memory_steps else 0.0
        return self.step_seconds + stall

    @property
    def _pause_seconds(self) -> float:
        apart_seconds = self.interval_steps * self._pace_seconds
        return max(self.stall_seconds, self.save_seconds - apart_seconds)

    def _step(self, elapsed: float) -> int:
        stepped = elapsed - self._stalled(elapsed)
        return self.resumed_step + math.floor(stepped / self._pace_seconds + _ROUNDING)

    def _stalled(self, elapsed: float) -> float:
        """In saves to the volume."""
        begun = self._saves(elapsed)
        if not begun:
            return 0.0
        last = min(self._pause_seconds, elapsed - self._begins_at(begun))
        return (begun - 1) * self._pause_seconds + last

    def _in_memory(self, elapsed: float) -> int | None:
        if self.memory_steps is None or elapsed < 0:
            return None
        saved = self._step(elapsed) // self.memory_steps * self.memory_steps
        if saved > self.resumed_step:
            return saved
        return self.resumed_step if self.is_from_memory else None

    @property
    def _first(self) -> int:
        """Steps before the first save."""
        return self.interval_steps - self.resumed_step % self.interval_steps

    def _saves(self, elapsed: float) -> int:
        """Begun by then."""
        since_first = elapsed - self._first * self._pace_seconds
        if since_first < 0:
            return 0
        cycle = self.interval_steps * self._pace_seconds + self._pause_seconds
        return math.floor(since_first / cycle) + 1

    def _begins_at(self, number: int) -> float:
        steps = self._first + (number - 1) * self.interval_steps
        return steps * self._pace_seconds + (number - 1) * self._pause_seconds

    def _step_of(self, number: int) -> int:
        return self.resumed_step + self._first + (number - 1) * self.interval_steps
