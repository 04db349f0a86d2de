"""The real passes, killed and cut off at every write in turn, on the whole walk of a run.

The world is deterministic, and what a process remembers must not matter: where all that can be
seen at the end of a tick is the same, so is all that follows. So each tick is tried by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count

import pytest

from pretrain_operator import conditions
from pretrain_operator.cluster import ApiError

from .runs import demo_body
from .simulation import (
    cluster,
    edit_interval,
    kill_worker,
    power_off_node,
    quarantine_newest,
    suspend_for_three_ticks,
)
from .world import Operator, World

MAX_TICKS = 70
SCRIPT = [
    (20, kill_worker),
    (30, quarantine_newest),
    (40, suspend_for_three_ticks),
    (60, edit_interval),
    (80, power_off_node),
]
STEPS = 100


class KilledError(BaseException):
    """The operator's process is gone."""


@cache
def ticks() -> tuple[tuple[World, World], ...]:
    """The world before and after what one undisturbed operator does in each tick, to Serving."""
    simulation = cluster(World(demo_body(training__steps=STEPS)), script=list(SCRIPT))
    operator, seen = Operator(simulation.world), []
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


def test_walk_of_the_crash_tests_goes_through_everything_in_the_script():
    status = ticks()[-1][1].status
    assert [incident.level for incident in status.incidents] == ["WorkerRestart", "NodeReplacement"]
    assert status.attempt == 2
    assert len(status.checkpoints.quarantined) == 1
    states = [conditions.state(after.status) for _before, after in ticks()]
    assert conditions.SUSPENDED in states
    assert status.training is not None
    assert status.training.step == STEPS
    assert {item.type: item.status for item in status.conditions} == dict.fromkeys(
        ["Succeeded", "DataReady", "Trained", "Exported", "PostTrained", "Served"], "True"
    )


def test_operator_killed_at_every_write_in_turn_leaves_the_same_world():
    """Killed after a write is killed before the next one: the dead remember nothing, and what is
    there is the same. Before the first write, a process that begins there stands for it.
    """
    kills = 0
    for before, undisturbed in ticks():
        for number in count(0):
            world = before.copy()
            try:
                Operator(world, after_write=at_write(number, KilledError())).settle()
            except KilledError:
                kills += 1
                Operator(world).settle()
                assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
            else:
                assert world.shown() == undisturbed.shown(), f"begun at {world.now}"
                if number:
                    break
    assert kills >= 60


@pytest.mark.parametrize("edge", ["before_write", "after_write"])
def test_operator_whose_every_write_in_turn_is_cut_off_leaves_the_same_world(edge: str):
    """The request is lost, or the answer. The process lives on; its watches are late."""
    lost = 0
    for before, undisturbed in ticks():
        for number in count(1):
            world = before.copy()
            cut = at_write(number, ApiError(0, "NoAnswer", "connection reset"))
            operator = Operator(world, **{edge: cut})
            try:
                operator.settle()
            except ApiError:
                lost += 1
            else:
                break
            operator.one_pass(sees_changes=False)
            operator.settle()
            assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
    assert lost >= 60


def test_pass_commits_its_status_before_it_touches_anything():
    commits = 0
    for before, _after in ticks():
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
    for before, _after in ticks():
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
