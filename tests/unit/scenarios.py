"""Runs walked to where a scenario begins, and how it goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from pretrain_llm.contract import codec
from pretrain_llm.contract.results import StageError, TerminationMessage
from pretrain_operator import conditions
from pretrain_operator.api.status import Condition
from pretrain_operator.settings import Settings

from .runs import demo_body
from .simulation import Simulation, cluster
from .world import SETTINGS, Operator, World

MAX_TICKS = 60
STEPS = 60  # six ticks


def started(**changes: Any) -> Simulation:
    return cluster(World(demo_body(**{"training__steps": STEPS, **changes})))


def settle(simulation: Simulation, settings: Settings = SETTINGS) -> None:
    Operator(simulation.world, settings).settle()


def until(
    simulation: Simulation, is_so: Callable[[], object], settings: Settings = SETTINGS
) -> None:
    for _ in range(MAX_TICKS):
        settle(simulation, settings)
        if is_so():
            return
        simulation.tick()
    raise AssertionError(f"not within {MAX_TICKS} ticks: {simulation.world.status}")


def state(simulation: Simulation) -> str | None:
    return conditions.state(simulation.world.status)


def summary(simulation: Simulation) -> Condition:
    found = conditions.condition(simulation.world.status, conditions.SUCCEEDED)
    assert found is not None
    return found


def step(simulation: Simulation) -> int:
    training = simulation.world.status.training
    return training.step if training else 0


def until_state(simulation: Simulation, *wanted: str) -> None:
    until(simulation, lambda: state(simulation) in wanted)


@cache
def _walked_to(
    wanted: str, steps: int = 0, settings: Settings = SETTINGS, **changes: Any
) -> Simulation:
    simulation = started(**changes)
    until(simulation, lambda: state(simulation) == wanted and step(simulation) >= steps, settings)
    return simulation


# Walked to once: what follows is done to copies


def starting_run() -> Simulation:
    """With the Job of the first attempt, and no round yet."""
    return _walked_to(conditions.STARTING).copy()


def training_run(settings: Settings = SETTINGS, **changes: Any) -> Simulation:
    """At step 30."""
    return _walked_to(conditions.TRAINING, 30, settings, **changes).copy()


def deploying_run() -> Simulation:
    return _walked_to(conditions.DEPLOYING).copy()


def serving_run() -> Simulation:
    return _walked_to(conditions.SERVING).copy()


def job_names(simulation: Simulation) -> list[str]:
    return [job["metadata"]["name"] for job in simulation.world.of_kind("Job")]


def components(simulation: Simulation) -> set[str]:
    return {
        pod["metadata"]["labels"]["pretrain.dev/component"]
        for pod in simulation.world.of_kind("Pod")
        if pod["status"]["phase"] == "Running"
    }


def last_words(message: str, code: int, **parts: str) -> str:
    """Termination message of a program that found something wrong."""
    error = StageError(message, "InputError", code, **parts)
    return codec.to_json(TerminationMessage(error=error))
