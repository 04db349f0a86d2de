"""A run walks from nothing to Serving through a killed worker and a lost node."""

from __future__ import annotations

from functools import cache

import pytest

from pretrain_operator import conditions

from .runs import demo_body
from .simulation import Simulation, cluster
from .simulation_faults import kill_worker, power_off_node
from .world import Operator, World

MAX_TICKS = 50
STEPS = 80
AWAY = (range(1, 9), range(4, 9), range(8, 20), range(15, 40))  # ticks


def scripted() -> Simulation:
    script = [(20, kill_worker), (50, power_off_node)]
    return cluster(World(demo_body(training__steps=STEPS)), script=script)


@cache
def walked_without(away: range) -> Simulation:
    """All ticks, those of `away` without an operator. Shared: to be read only."""
    simulation = scripted()
    for tick in range(MAX_TICKS):
        if tick not in away:
            Operator(simulation.world).settle()
        simulation.tick()
    return simulation


@cache
def walked() -> Simulation:
    """To Serving, with one operator. Shared: to be read only."""
    simulation = scripted()
    operator = Operator(simulation.world)
    for _ in range(MAX_TICKS):
        operator.settle()
        if conditions.state(simulation.world.status) == conditions.SERVING:
            return simulation
        simulation.tick()
    raise AssertionError(f"not serving after {MAX_TICKS} ticks: {simulation.world.status}")


def test_run_with_a_killed_worker_and_a_lost_node_reaches_serving():
    simulation = walked()
    status = simulation.world.status
    assert [(made.stage, made.name) for made in status.artifacts] == [
        ("Data", None),
        ("Training", None),
        ("Export", None),
        ("PostTraining", "sft"),
    ]
    assert [incident.fault_class for incident in status.incidents] == ["WorkerKilled", "NodeLost"]
    assert [incident.level for incident in status.incidents] == ["WorkerRestart", "NodeReplacement"]
    assert all(incident.first_step_seconds == 0.5 for incident in status.incidents)
    assert status.attempt == 1
    assert status.budgets.total == 2
    assert status.training is not None
    assert status.training.step == STEPS
    assert status.serving is not None
    assert status.serving.url == "http://demo-serve.llm.svc.cluster.local:8000/v1"
    assert {item.type: item.status for item in status.conditions} == dict.fromkeys(
        ["Succeeded", "DataReady", "Trained", "Exported", "PostTrained", "Served"], "True"
    )
    assert all(stage.finished_at for stage in status.stages)


def test_run_in_its_end_state_plans_nothing():
    simulation = walked()
    decided = Operator(simulation.world).plan()
    assert (decided.apply, decided.delete) == ((), ())
    assert decided.status == simulation.world.status


@pytest.mark.parametrize("away", AWAY)
def test_run_whose_operator_is_away_meanwhile_catches_up(away: range):
    simulation = walked_without(away)
    status = simulation.world.status
    assert conditions.state(status) == conditions.SERVING
    assert status.budgets.total == len(status.incidents) == 2
