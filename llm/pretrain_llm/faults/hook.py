"""What a worker looks for at each step boundary, in a run that allows injected faults."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from ..contract import environment
from . import acts, requests
from .delay import Block, Delay


class Hook:
    """Of one worker process, and so of one round."""

    def __init__(
        self, file: Path, scale_weights: acts.ScaleWeights, blocks: Collection[Block] = ()
    ) -> None:
        """`scale_weights` multiplies this rank's part of every weight. Without `blocks` a slow
        rank is late at the step boundary.
        """
        self._file, self._scale_weights, self._blocks = file, scale_weights, blocks
        self._is_first = True
        self._late_seconds, self._late_steps = 0.0, 0
        self._delay: Delay | None = None

    def boundary(self) -> None:
        """Does what is requested, if anything is. May raise anything, or never return."""
        request = requests.take(self._file, at_start=self._is_first)
        self._is_first = False
        if request is not None and request.kind == "slow-rank":
            self._late_seconds, self._late_steps = request.seconds, request.steps
            if self._blocks and self._delay is None:
                self._delay = Delay(self._blocks)
        elif request is not None:
            acts.act(request.kind, self._scale_weights)
        if self._late_steps:
            self._late_steps -= 1
            (self._delay.next_step if self._delay else time.sleep)(self._late_seconds)


def is_allowed(variables: Mapping[str, str]) -> bool:
    return variables.get(environment.FAULT_INJECTION) == "true"


def hook(scale_weights: acts.ScaleWeights, blocks: Collection[Block] = ()) -> Hook | None:
    """None where the run does not allow it."""
    if not is_allowed(os.environ):
        return None
    scratch = Path(os.environ.get(environment.SCRATCH) or environment.SCRATCH_PATH)
    return Hook(requests.path(scratch, int(os.environ["RANK"])), scale_weights, blocks)
