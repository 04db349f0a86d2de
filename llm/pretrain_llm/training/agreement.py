"""What all ranks agree on at a step boundary: whether to stop, and how often to save.

A signal reaches each process at another time, and so does the coordinator's word on the interval
between saves. No rank may act on its own: the others would wait for it in a collective for ever.
Each step posts the largest of the ranks' words and reads it only at the next boundary, when it has
long arrived: it costs a step of delay and no time. Only the first boundary waits for it.

    boundary n       post the words of n
    step n + 1       ... the largest travels meanwhile
    boundary n + 1   read it: everybody stops here, or saves by the same interval from here on
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist

from ..contract import environment, exit_codes


def leave_at_once() -> None:
    """While a worker sets up there is nothing to save: SIGTERM ends it where it is."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(exit_codes.SAVED)


def told_interval() -> int:
    """Steps between two saves, as rank 0's agent heard last; 0: not heard, or another rank."""
    path = os.environ.get(environment.INTERVAL_FILE)
    if path is None or dist.get_rank() != 0:
        return 0
    try:
        return int(Path(path).read_text())
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class Agreed:
    stop: bool  # some rank was asked to
    interval: int  # steps between two saves; 0: nobody has heard of one


class Agreement:
    """Of one process; every rank of the group makes one and calls it in the same order."""

    def __init__(
        self, group: dist.ProcessGroup, interval: Callable[[], int] = told_interval
    ) -> None:
        """`group`: of all ranks, for tensors on the CPU; used by the step loop's thread only."""
        self._group, self._interval = group, interval
        self._asked = False
        self._words = torch.zeros(2, dtype=torch.int32)
        self._posted: dist.Work | None = None

    def listen(self) -> None:
        """Takes SIGTERM from now on, when there are steps to lose."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked = True

    def post(self) -> None:
        self._words.copy_(torch.tensor([int(self._asked), self._interval()]))
        self._posted = dist.all_reduce(
            self._words, op=dist.ReduceOp.MAX, group=self._group, async_op=True
        )

    def agreed(self) -> Agreed:
        """What all of them posted last; before any did, what they post now."""
        if self._posted is None:
            self.post()
        assert self._posted is not None
        self._posted.wait()
        self._posted = None
        stop, interval = self._words.tolist()
        return Agreed(bool(stop), interval)
