"""Workers that live and do not step: found, named, and gone on from, in bounded time.

The limits are the defaults, so that what is measured is what a run gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain_llm.contract import status
from pretrain_llm.contract.status import Incident

from .agent_world import World, eventually, small_run

DETECT_SECONDS = 10.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    volume = tmp_path_factory.mktemp("volume")
    world = World(replace(small_run(nodes=3), volume=str(volume)), allows_faults=True)
    try:
        yield world
    finally:
        world.close()


def hung(world: World, hang: Callable[[str], object]) -> tuple[Incident, Path]:
    """The incident after the agent of rank 1 was given to `hang`, and the folder of its stacks."""
    before = world.stepping(above=5)
    members = world.members()
    hang(members[1])
    after = world.recovered(before.round)
    assert world.members() == members
    incident = after.incidents[-1]
    assert (incident.round, incident.evidence) == (before.round, status.STALLED)
    assert incident.agent == members[1]
    assert [suspect.rank for suspect in incident.suspects] == [1]
    assert incident.detect_seconds is not None
    assert incident.detect_seconds < DETECT_SECONDS
    assert incident.reschedule_seconds is not None
    assert incident.reschedule_seconds < 5
    assert incident.stacks_path
    print(f"detect {incident.detect_seconds} s, next round {incident.reschedule_seconds} s")
    return incident, Path(incident.stacks_path)


def test_worker_stopped_is_the_suspect_and_the_next_round_steps(world: World) -> None:
    incident, folder = hung(world, lambda name: world.inject(name, "worker-sigstop"))
    (suspect,) = incident.suspects
    assert (suspect.reason, suspect.frames) == ("its process is stopped", ())
    for rank in (0, 2):
        path = folder / f"1-{incident.round}-{rank}.txt"
        eventually(path.exists, f"{path} is written", 5)
        assert "distributed_c10d.py" in path.read_text()
    assert not (folder / f"1-{incident.round}-1.txt").exists(), "a stopped process cannot answer"


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        pytest.param("collective-deadlock", "take_lock_twice", id="dead-locked"),
        pytest.param("hold-gil", "hold_gil", id="holding the GIL in C code"),
    ],
)
def test_worker_misses_a_collective_is_the_suspect_with_its_frame(
    world: World, kind: str, function: str
) -> None:
    incident, folder = hung(world, lambda name: world.inject(name, kind))
    (suspect,) = incident.suspects
    assert suspect.reason == "it is not in the collective that others wait in"
    assert suspect.frames[0].endswith(f" {function}")
    path = folder / f"1-{incident.round}-1.txt"
    eventually(path.exists, f"{path} is written", 5)
    assert function in path.read_text()
