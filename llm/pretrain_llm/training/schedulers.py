"""Learning rates of a schedule that begins where the curriculum says, not only at step 0."""

from __future__ import annotations

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

        def build(self, *, training_steps: int, **arguments: Any) -> Schedulers:
            built = LRSchedulersContainer.Config.build(
                self, training_steps=training_steps, **arguments
            )
            return Schedulers(built, self.start, self.total_steps or training_steps)

    def __init__(self, built: LRSchedulersContainer, start: int, total_steps: int) -> None:
        self.schedulers = built.schedulers
        for scheduler in self._lambdas():
            factors = [_shifted(each, start, total_steps) for each in scheduler.lr_lambdas]
            scheduler.lr_lambdas = factors

    def apply(self) -> None:
        """After a load: an optimiser's state brings the rate that it was saved with."""
        for scheduler in self._lambdas():
            rates = scheduler.get_last_lr()
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def _lambdas(self) -> list[LambdaLR]:
        return [each for each in self.schedulers if isinstance(each, LambdaLR)]


def _shifted(
    factor: Callable[[int], float], start: int, total_steps: int
) -> Callable[[int], float]:
    """Past its end torchtitan's factor falls on, below zero."""
    return lambda step: factor(min(step - start, total_steps - 1))
