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


@dataclass(frozen=True)
class Stretch:
    """Training from `resumed_step` on, since `since`, with a save at each multiple of `interval`.

        |--steps--|stall|--steps--|stall|--…

    A save is complete `save_seconds` after its stall has begun.
    """

    since: float
    resumed_step: int
    saved_step: int  # what it resumed from
    step_seconds: float
    interval_steps: int
    stall_seconds: float
    save_seconds: float

    def position(self, now: float) -> Position:
        elapsed = max(0.0, now - self.since)
        begun = self._saves(elapsed)
        stalled = 0.0
        if begun:
            stalled = (begun - 1) * self.stall_seconds
            stalled += min(self.stall_seconds, elapsed - self._begins_at(begun))
        done = math.floor((elapsed - stalled) / self.step_seconds + _ROUNDING)
        complete = self._saves(elapsed - max(self.stall_seconds, self.save_seconds))
        saved = self._step_of(complete) if complete else self.saved_step
        return Position(self.resumed_step + done, saved, stalled)

    def ends_at(self, total_steps: int) -> float:
        """When the last step is finished."""
        missing = total_steps - self.resumed_step
        saves = max(0, math.ceil((missing - self._first) / self.interval_steps))
        return self.since + missing * self.step_seconds + saves * self.stall_seconds

    @property
    def _first(self) -> int:
        """Steps before the first save."""
        return self.interval_steps - self.resumed_step % self.interval_steps

    def _saves(self, elapsed: float) -> int:
        """Begun by then."""
        since_first = elapsed - self._first * self.step_seconds
        if since_first < 0:
            return 0
        cycle = self.interval_steps * self.step_seconds + self.stall_seconds
        return math.floor(since_first / cycle) + 1

    def _begins_at(self, number: int) -> float:
        steps = self._first + (number - 1) * self.interval_steps
        return steps * self.step_seconds + (number - 1) * self.stall_seconds

    def _step_of(self, number: int) -> int:
        return self.resumed_step + self._first + (number - 1) * self.interval_steps
