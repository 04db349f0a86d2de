"""Checkpoints in memory, with real agents and torchtitan's workers: what a fault costs with them.

The tests share one world: each leaves it with two members and their copies. There are checkpoints
on the volume only every VOLUME_INTERVAL steps, so that what is lost tells where it came from.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_llm.agent import settings
from pretrain_llm.contract import reports
from pretrain_llm.contract.config import MemoryConfig
from pretrain_llm.contract.status import Incident, StatusDocument

from .agent_world import World, eventually
from .runs import mesh, run_config, write_data

INTERVAL = 60  # at 30 ms a step a fault still comes well before the next copy
VOLUME_INTERVAL = 10_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    run = run_config(
        tmp_path_factory.mktemp("memory"),
        parallelism=mesh(shard=2),
        nodes={"count": 2, "spares": 1},
        training={"steps": 100_000},
        checkpoint={"interval": VOLUME_INTERVAL, "memory": MemoryConfig(INTERVAL)},
    )
    write_data(run.layout, tokens=80_000)
    world = World(run, settings.WORKER, settings.PRELOAD)
    try:
        eventually(lambda: (seen := world.status()) and seen.round, "the first round", 180)
        yield world
    finally:
        world.close()


def safe_step(status: StatusDocument) -> int:
    return status.memory_checkpoint.step if status.memory_checkpoint else 0


def past_copies(world: World) -> StatusDocument:
    """The status between two copies: this round's last one is safe, steps came after it, and the
    next one is far. A fault now loses those steps and no others.
    """
    before = world.stepping()
    assert before.progress
    reached = before.progress.step
    return world.seen(
        lambda s: bool(
            s.progress
            and reached < safe_step(s)
            and 2 < s.progress.step - safe_step(s) < INTERVAL - 15
        ),
        f"copies of a step after {reached}, and steps after it",
    )


def incident(world: World, before: StatusDocument) -> Incident:
    """Of the fault after `before`, once it is over and its lost steps were made again, the same."""
    world.recovered(before.round)
    after = world.seen(lambda s: s.replay.steps > before.replay.steps, "steps made again")
    assert after.replay.max_loss_difference == 0
    return after.incidents[-1]


def test_worker_killed_starts_from_its_nodes_memory(world: World) -> None:
    before = past_copies(world)
    world.kill_worker(world.members()[1], 0)
    found = incident(world, before)
    assert found.restored_from == reports.MEMORY
    assert found.resumed_step is not None
    assert found.resumed_step >= safe_step(before)
    assert found.steps_lost is not None
    assert 0 < found.steps_lost < 2 * INTERVAL  # a save is left out where the machine is slow


def test_agent_lost_with_its_memory_spare_starts_from_the_peers_copy(world: World) -> None:
    before = past_copies(world)
    lost = world.members()[1]
    world.agents[lost].kill()
    world.agents[lost].wait()
    shutil.rmtree(world.memory(lost))
    found = incident(world, before)
    assert lost not in world.members()
    assert found.restored_from == reports.PEER
    assert found.resumed_step is not None
    assert found.resumed_step >= safe_step(before)
    assert b"pretrain_run_memory_checkpoint_step" in world.get("/metrics")


def test_shard_damaged_all_start_from_the_volume(world: World) -> None:
    before = past_copies(world)
    for shard in world.memory(world.members()[0]).glob("*/0/0.bin"):
        damage(shard)
    world.kill_worker(world.members()[1], 0)
    found = incident(world, before)
    assert (found.restored_from, found.resumed_step) == (reports.SCRATCH, 0)
    assert "another checksum" in world.log(world.members()[0])


def damage(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.write(b"\xff" * 8)
