"""Steps without an update: where loss or gradient norm stands out from those before.

Source: OLMo et al. 2025 (2 OLMo 2 Furious) and OLMo-core's SkipStepOptimizer: more than a number
of standard deviations above the mean of a window of steps. Data, rate and step count go on; weights
and optimiser state stay. What stood out does not enter the window, so that it cannot raise the
limit. A loss that is no number ends the worker after all: torchtitan looks at it behind the step.

`SkipStep` is the gate of `optimizers.Optimizers`; its window is saved with the checkpoint, so that
a resumed run decides as the one that was not interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchtitan.distributed import utils as dist_utils

from ..contract.config import SkipStepConfig

_log = logging.getLogger(__name__)

Observation = tuple[float, float]  # loss and gradient norm of a step


def is_outlier(window: Sequence[float], value: float, deviations: float) -> bool:
    """Also of a value that is no number."""
    limit = statistics.fmean(window) + deviations * statistics.stdev(window)
    return not value <= limit


class OutlierGate:
    def __init__(self, config: SkipStepConfig) -> None:
        self._config = config
        self._window: list[Observation] = []

    def admits(self, step: int, loss: float, gradient_norm: float) -> bool:
        """Equal on all ranks, as both numbers are. Until the window is half full, all but what is
        no number."""
        observed = (loss, gradient_norm)
        enough = max(2, self._config.window // 2)
        if len(self._window) < enough:
            stands_out = not all(math.isfinite(value) for value in observed)
        else:
            columns = zip(*self._window, strict=True)
            stands_out = any(
                is_outlier(column, value, self._config.deviations)
                for column, value in zip(columns, observed, strict=True)
            )
        if stands_out:
            _log.warning("step %d has no update: loss %g, gradient norm %g", step, *observed)
            return False
        self._window = [*self._window, observed][-self._config.window :]
        return True

    @property
    def saved(self) -> str:
        """The window as text, which a checkpoint takes as it is."""
        return json.dumps(self._window)

    def restore(self, saved: str) -> None:
        self._window = [(loss, norm) for loss, norm in json.loads(saved)]


class SkipStep:
    """The gate of a trainer's optimisers: gathers loss and gradient norm, clips, and decides.

    It clips itself, since torchtitan does so before and keeps the norm to itself: torchtitan is to
    have no limit.
    """

    def __init__(self, config: SkipStepConfig, clip_norm: float, trainer: Any) -> None:
        self.gate = OutlierGate(config)
        self._clip_norm, self._trainer = clip_norm, trainer
        self._losses: list[Tensor] = []  # of this rank, one a microbatch

    def add(self, loss: Tensor) -> None:
        self._losses.append(loss.detach().clone())

    def __call__(self) -> bool:
        trainer = self._trainer
        stages = trainer.parallel_dims.get_optional_mesh("pp")
        norm = dist_utils.clip_grad_norm_(
            [parameter for part in trainer.model_parts for parameter in part.parameters()],
            self._clip_norm,
            foreach=True,
            pp_mesh=stages,
        )
        loss = torch.stack(self._losses).sum()
        self._losses = []
        if (ranks := trainer.parallel_dims.get_optional_mesh("loss")) is not None:
            loss = torch.tensor(dist_utils.dist_sum(loss, ranks), device=loss.device)
        if stages is not None:  # all but the last have -1
            loss = torch.tensor(dist_utils.dist_max(loss, stages), device=loss.device)
        return self.gate.admits(trainer.step, float(loss), float(norm))
