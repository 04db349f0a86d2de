"""All ranks agree, at a step boundary, that one of them was asked to stop.

A signal reaches each process at another time, so no rank may stop on its own: the others would wait
for it in a collective for ever. Each step posts a sum over the ranks' flags and reads it only at
the next boundary, when it has long arrived: it costs a step of delay and no time.

    boundary n       post the flags of n
    step n + 1       ... the sum travels meanwhile
    boundary n + 1   read it: over zero means that everybody saves and leaves here
"""

from __future__ import annotations

import signal
from types import FrameType

import torch
import torch.distributed as dist

from ..contract import exit_codes


def leave_at_once() -> None:
    """While a worker sets up there is nothing to save: SIGTERM ends it where it is."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(exit_codes.SAVED)


class StopAgreement:
    """Of one process; every rank of the group makes one and calls it in the same order."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        """`group`: gloo over all ranks, used for nothing else."""
        self._group = group
        self._asked = False
        self._sum = torch.zeros(1, dtype=torch.int32)
        self._posted: dist.Work | None = None

    def listen(self) -> None:
        """Takes SIGTERM from now on, when there are steps to lose."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked = True

    def post(self) -> None:
        self._sum.fill_(int(self._asked))
        self._posted = dist.all_reduce(self._sum, group=self._group, async_op=True)

    def agreed(self) -> bool:
        """Whether any rank had been asked when all of them posted last."""
        if self._posted is None:
            return False
        self._posted.wait()
        self._posted = None
        return bool(self._sum.item())
