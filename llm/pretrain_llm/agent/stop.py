"""SIGTERM as a fact to look at, not an exception in the middle of anything."""

from __future__ import annotations

import signal
from types import FrameType

from .bell import Bell


class StopRequestedError(Exception):
    """The agent was asked to stop, and has; `is_saved`: nothing was lost by it."""

    def __init__(self, *, is_saved: bool) -> None:
        super().__init__("asked to stop")
        self.is_saved = is_saved


class StopRequest:
    """Whether SIGTERM or SIGINT has come."""

    def __init__(self, bell: Bell) -> None:
        self.is_made = False
        self.is_preparing = True  # nothing is at stake yet: stop wherever the main thread is
        self._bell = bell
        signal.signal(signal.SIGTERM, self._received)
        signal.signal(signal.SIGINT, self._received)

    def _received(self, _signum: int, _frame: FrameType | None) -> None:
        self.is_made = True
        self._bell.ring()
        if self.is_preparing:
            raise StopRequestedError(is_saved=True)
