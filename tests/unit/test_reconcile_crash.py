"""The real passes, killed and cut off at every write in turn, on whole walks of runs with faults.

The world is deterministic, and what a process remembers must not matter: where all that can be
seen at the end of a tick is the same, metrics included, so is all that follows. So each tick is
tried by itself. `make test-crash` tries every walk; without the marker `crash`, one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count

import pytest

from pretrain_operator import conditions
from pretrain_operator.cluster import ApiError
from pretrain_operator.metrics import Metrics
from pretrain_operator.observed import ObjectKey
from pretrain_operator.settings import Settings

from .runs import demo_body
from .simulation import Simulation, cluster
from .simulation_faults import (
    ask_not_to_be_restarted,
    break_device,
    edit_interval,
    fail_job,
    hang,
    kill_worker,
    power_off_node,
    quarantine_newest,
    suspend_for_three_ticks,
)
from .world import SETTINGS, START, Operator, World, changed, key_of

MAX_TICKS = 70
STEPS = 100
Script = tuple[tuple[int, Callable[[Simulation], None]], ...]  # what happens at a step
_MARKING = Settings.model_validate({**SETTINGS.model_dump(), "node_exclusion": {"marks": "Taint"}})


@dataclass(frozen=True)
class Walk:
    script: Script
    incidents: str  # classes of its faults, as they are told
    attempts: int = 1
    settings: Settings = SETTINGS


WALKS = {
    "edited": Walk(
        (
            (20, kill_worker),
            (30, quarantine_newest),
            (40, suspend_for_three_ticks),
            (60, edit_interval),
            (80, power_off_node),
        ),
        "WorkerKilled NodeLost",
        attempts=2,
    ),
    "marked": Walk(
        ((20, break_device), (40, hang), (60, power_off_node), (80, kill_worker)),
        "DeviceBroken Hang NodeLost WorkerKilled",
        settings=_MARKING,
    ),
    "moved": Walk(
        ((20, hang), (40, break_device), (60, kill_worker)),
        "Hang DeviceBroken WorkerKilled",
        attempts=2,
    ),
    "failed": Walk(
        ((20, kill_worker), (50, fail_job), (70, power_off_node)),
        "WorkerKilled JobFailed NodeLost",
        attempts=2,
    ),
    "stopped": Walk(
        ((20, power_off_node), (50, ask_not_to_be_restarted), (70, kill_worker)),
        "NodeLost DoNotRestart WorkerKilled",
        attempts=2,
    ),
}
every_walk = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "edited" else pytest.mark.crash) for name in WALKS],
)


class KilledError(BaseException):
    """The operator's process is gone."""


@cache
def ticks(name: str) -> tuple[tuple[World, World], ...]:
    """The world before and after what one undisturbed operator does in each tick, to Serving."""
    walk = WALKS[name]
    world = World(demo_body(training__steps=STEPS))
    simulation = cluster(world, script=list(walk.script))
    operator, seen = Operator(simulation.world, walk.settings), []
    for _ in range(MAX_TICKS):
        before = simulation.world.copy()
        operator.settle()
        seen.append((before, simulation.world.copy()))
        if conditions.state(simulation.world.status) == conditions.SERVING:
            return tuple(seen)
        simulation.tick()
    raise AssertionError(f"not serving after {MAX_TICKS} ticks: {simulation.world.status}")


def at_write(number: int, error: BaseException) -> Callable[[], None]:
    """Raises the error once, at the write of that number; the first is 1."""
    writes = count(1)

    def raise_once() -> None:
        if next(writes) == number:
            raise error

    return raise_once


def series(operator: Operator) -> dict[str, float]:
    """All that Prometheus would read of runs and nodes; not how busy this process was."""
    return {
        f"{sample.name}{sample.labels}": sample.value
        for family in operator.metrics.registry.collect()
        for sample in family.samples
        if "run_" in sample.name or "_excluded_nodes" in sample.name
    }


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scrape, the time since the last pass counts: here none."""
    monkeypatch.setattr("pretrain_operator.metrics.time.time", lambda: START)


@every_walk
def test_walk_of_the_crash_tests_goes_through_everything_in_the_script(name: str):
    walk, status = WALKS[name], ticks(name)[-1][1].status
    told = [item.fault_class for item in status.incidents if item.fault_class != "AskedToLeave"]
    assert " ".join(told) == walk.incidents
    assert status.attempt == walk.attempts
    charged = [item for item in status.incidents if item.budget != "None"]
    assert status.budgets.total == len(charged)
    broken = {item.suspect.node for item in charged if item.fault_class == "DeviceBroken"}
    assert {entry.name for entry in status.excluded_nodes} == broken
    states = [conditions.state(after.status) for _before, after in ticks(name)]
    if name == "edited":
        assert len(status.checkpoints.quarantined) == 1
        assert conditions.SUSPENDED in states
    assert (conditions.DO_NOT_RESTART in states) is (name == "stopped")
    assert status.training is not None
    assert status.training.step == STEPS
    assert {item.type: item.status for item in status.conditions} == dict.fromkeys(
        ["Succeeded", "DataReady", "Trained", "Exported", "PostTrained", "Served"], "True"
    )


@every_walk
def test_operator_killed_at_every_write_in_turn_leaves_the_same_world(name: str):
    """Killed after a write is killed before the next one: the dead remember nothing, and what is
    there is the same. Before the first write, a process that begins there stands for it.
    """
    kills, settings = 0, WALKS[name].settings
    for before, undisturbed in ticks(name):
        wanted = None
        for number in count(0):
            world = before.copy()
            kill = at_write(number, KilledError())
            operator = Operator(world, settings, Metrics(), after_write=kill)
            was_killed = False
            try:
                operator.settle()
            except KilledError:
                was_killed = True
                operator = Operator(world, settings, Metrics())
                operator.settle()
            kills += was_killed
            assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
            wanted = wanted or series(operator)
            assert series(operator) == wanted, f"write {number} at {world.now}"
            if number and not was_killed:
                break
    assert kills >= 50


@every_walk
def test_operator_killed_after_each_of_its_writes_comes_to_the_same_end(name: str):
    """No process of it ever lives to see the answer to a second request."""
    walk = WALKS[name]
    world = World(demo_body(training__steps=STEPS))
    simulation = cluster(world, script=list(walk.script))
    for _before, undisturbed in ticks(name):
        while True:
            try:
                Operator(world, walk.settings, after_write=at_write(1, KilledError())).settle()
            except KilledError:
                continue
            break
        assert world.shown() == undisturbed.shown(), f"at {world.now}"
        simulation.tick()


@every_walk
@pytest.mark.parametrize("edge", ["before_write", "after_write"])
def test_operator_whose_every_write_in_turn_is_cut_off_leaves_the_same_world(name: str, edge: str):
    """The request is lost, or the answer. The process lives on; its watches are late."""
    lost, settings = 0, WALKS[name].settings
    for before, undisturbed in ticks(name):
        for number in count(1):
            world = before.copy()
            cut = at_write(number, ApiError(0, "NoAnswer", "connection reset"))
            operator = Operator(world, settings, **{edge: cut})
            try:
                operator.settle()
            except ApiError:
                lost += 1
            else:
                break
            operator.one_pass(sees_changes=False)
            operator.settle()
            assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
    assert lost >= 50


def test_pass_commits_its_status_before_it_touches_anything():
    commits = 0
    for before, _after in ticks("edited"):
        operator = Operator(before.copy())
        while True:
            known = len(operator.calls)
            if not operator.one_pass():
                break
            made = operator.calls[known:]
            commits += "replace_status PretrainRun" in made
            assert "replace_status PretrainRun" not in made[1:]
    assert commits >= 20


def test_operator_whose_watches_are_late_sees_its_own_writes():
    for before, _after in ticks("edited"):
        watching, blind = Operator(before.copy()), Operator(before.copy())
        watching.settle()
        blind.one_pass()
        blind.settle(sees_changes=False)
        assert blind.calls == watching.calls


def test_commit_on_a_run_edited_meanwhile_is_refused_and_planned_anew():
    simulation = cluster(World(demo_body(training__steps=STEPS)))
    operator, world = Operator(simulation.world), simulation.world
    while conditions.state(world.status) != conditions.TRAINING:
        simulation.tick()
        operator.settle()
    kill_worker(simulation)
    world.edit(suspend=True)
    before = world.status
    assert operator.one_pass(sees_changes=False) == 1
    assert world.status == before
    operator.settle(sees_changes=False)
    assert conditions.state(world.status) == conditions.SUSPENDING
    assert [incident.fault_class for incident in world.status.incidents] == ["WorkerKilled"]


def test_pod_made_anew_under_its_name_is_not_taken_for_the_lost_one():
    """The API server refuses to mark it failed (422) and to delete it (409): the pass goes on."""
    simulation = cluster(World(demo_body(training__steps=STEPS)))
    operator, world = Operator(simulation.world), simulation.world
    while conditions.state(world.status) != conditions.TRAINING:
        simulation.tick()
        operator.settle()
    power_off_node(simulation)
    assert world.document is not None
    known = world.objects[ObjectKey("Pod", world.document.agents[-1].name)]
    operator._watch()
    del world.objects[key_of(known)]
    world.objects[key_of(known)] = changed(known, metadata={"uid": "another"})
    anew = world.objects[key_of(known)]
    operator.one_pass(sees_changes=False)
    assert {"apply_status Pod", "delete Pod"} <= set(operator.calls)
    assert world.objects[key_of(known)] == anew
