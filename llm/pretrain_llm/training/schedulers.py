"""Learning rates of a schedule that begins where the curriculum says, not only at step 0; and
weight decay, where it follows one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from torchtitan.components.optimizer import LRSchedulersContainer


class Schedulers(LRSchedulersContainer):
    """torchtitan's schedule over `total_steps` from `start` on, and its end from there on."""

    @dataclass(kw_only=True, slots=True)
    class Config(LRSchedulersContainer.Config):
        start: int = 0
        weight_decay: str | None = None  # cosine; None: constant

        def build(self, *, training_steps: int, **arguments: Any) -> Schedulers:
            built = LRSchedulersContainer.Config.build(
                self, training_steps=training_steps, **arguments
            )
            return Schedulers(built, self, self.total_steps or training_steps)

    def __init__(self, built: LRSchedulersContainer, config: Config, total_steps: int) -> None:
        self.schedulers, self._config, self._total_steps = built.schedulers, config, total_steps
        for scheduler in self._lambdas():
            factors = [_shifted(each, config.start, total_steps) for each in scheduler.lr_lambdas]
            scheduler.lr_lambdas = factors
        self._peak_decays = [
            [group["weight_decay"] for group in scheduler.optimizer.param_groups]
            for scheduler in self._lambdas()
        ]

    def step(self) -> None:
        super().step()
        self._decay_weights()

    def apply(self) -> None:
        """After a load: an optimiser's state brings the rate and decay that it was saved with."""
        self._decay_weights()
        for scheduler in self._lambdas():
            rates = scheduler.get_last_lr()
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def _decay_weights(self) -> None:
        for scheduler, peaks in zip(self._lambdas(), self._peak_decays, strict=True):
            share = self._decay_share(scheduler.last_epoch)
            for group, peak in zip(scheduler.optimizer.param_groups, peaks, strict=True):
                group["weight_decay"] = share * peak

    def _decay_share(self, step: int) -> float:
        """Of the peak: nanochat's half a cosine, from 1 to 0 over the schedule's steps."""
        if self._config.weight_decay is None:
            return 1.0
        share = min(1.0, (step - self._config.start) / self._total_steps)
        return 0.5 * (1 + math.cos(math.pi * share))

    def _lambdas(self) -> list[LambdaLR]:
        return [each for each in self.schedulers if isinstance(each, LambdaLR)]


def _shifted(
    factor: Callable[[int], float], start: int, total_steps: int
) -> Callable[[int], float]:
    """Past its end torchtitan's factor falls on, below zero."""
    return lambda step: factor(min(step - start, total_steps - 1))
