"""How much the result hangs on each duration: one at a time, halved and doubled. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .durations import Durations
from .engine import simulation
from .result import Result
from .scenarios import Scenario
from .trace import Fault

MAX_HORIZON_SECONDS = 6 * 86_400.0  # of each run here: two for each duration


@dataclass(frozen=True)
class Sensitivity:
    name: str  # of the duration
    halved: Result
    doubled: Result

    @property
    def spread(self) -> float:
        return abs(self.halved.ettr - self.doubled.ettr)


def simulated(scenario: Scenario, faults: tuple[Fault, ...]) -> Result:
    return simulation(
        scenario.spec,
        scenario.durations,
        faults,
        total_steps=scenario.total_steps,
        horizon_seconds=scenario.horizon_seconds,
        mtbf_seconds=scenario.mtbf_seconds,
    )


def shortened(scenario: Scenario) -> Scenario:
    return replace(scenario, horizon_seconds=min(scenario.horizon_seconds, MAX_HORIZON_SECONDS))


def sensitivities(scenario: Scenario, faults: tuple[Fault, ...]) -> tuple[Sensitivity, ...]:
    """Of each duration that matters; saves in memory have no interval to vary if none are made."""
    durations = scenario.durations
    idle = () if durations.memory_steps else ("memory_steps",)
    names = [name for name in durations.used() if name not in idle]
    return tuple(sensitivity(scenario, faults, name) for name in names)


def sensitivity(scenario: Scenario, faults: tuple[Fault, ...], name: str) -> Sensitivity:
    """Over the scenario's first MAX_HORIZON_SECONDS, with the same faults."""
    base = scenario.durations
    if name == "checkpoint_steps" and base.checkpoint_steps is None:
        base = replace(base, checkpoint_steps=base.interval_steps(scenario.mtbf_seconds))
    short = shortened(scenario)
    halved, doubled = (_varied(short, base, name, factor, faults) for factor in (0.5, 2.0))
    return Sensitivity(name, halved, doubled)


def _varied(
    scenario: Scenario, base: Durations, name: str, factor: float, faults: tuple[Fault, ...]
) -> Result:
    return simulated(replace(scenario, durations=base.scaled(name, factor)), faults)
