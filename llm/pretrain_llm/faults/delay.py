"""A slow device, as its rank's own time shows it: the wait is inside a block's forward pass.

At a step boundary it would not: there all ranks wait for the late one alike (training/own_time.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Protocol


class Block(Protocol):
    """A torch.nn.Module, as far as it matters here."""

    def register_forward_pre_hook(self, hook: Any) -> Any: ...


class Delay:
    """Of one worker. Made after the hooks that its wait must show in."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._seconds = 0.0  # of the step that comes
        for block in blocks:
            block.register_forward_pre_hook(self._wait)

    def next_step(self, seconds: float) -> None:
        """How much longer the step's first block takes: its mean over blocks is all that counts."""
        self._seconds = seconds

    def _wait(self, *_: object) -> None:
        if not self._seconds:
            return
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else the device still computes what came before meanwhile
        time.sleep(self._seconds)
        self._seconds = 0.0
