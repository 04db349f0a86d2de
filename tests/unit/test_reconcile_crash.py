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


class KilledError(Exception):
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


def at_write(number: int, error: Exception) -> Callable[[str], None]:
    """Raises the error once, when so many writes have been made."""
    writes = count(1)

    def raise_once(_what: str) -> None:
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
                Operator(world, on_write=at_write(number, KilledError())).settle()
            except KilledError:
                kills += 1
                Operator(world).settle()
                assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
            else:
                assert world.shown() == undisturbed.shown(), f"begun at {world.now}"
                if number:
                    break
    assert kills >= 60


@pytest.mark.parametrize("sees_changes", [True, False], ids=["watching", "watches-late"])
def test_operator_whose_every_write_in_turn_is_not_answered_leaves_the_same_world(
    sees_changes: bool,
):
    """The write was made, but the process does not know, nor do its watches perhaps."""
    lost = 0
    for before, undisturbed in ticks():
        for number in count(1):
            world = before.copy()
            operator = Operator(world, on_write=at_write(number, ApiError(0, "NoAnswer", "cut")))
            try:
                operator.settle()
            except ApiError:
                lost += 1
            else:
                break
            if not sees_changes:
                operator.one_pass(sees_changes=False)
            operator.settle()
            assert world.shown() == undisturbed.shown(), f"write {number} at {world.now}"
    assert lost >= 60
