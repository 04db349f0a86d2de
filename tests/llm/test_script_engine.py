"""examples/script/train.py under real agents: all that docs/script-engine.md promises.

One run meets a drain, a killed worker and a stopped one; a second meets nothing. Both must end with
the same bytes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain_llm.checkpoints import folders
from pretrain_llm.contract import config, environment, exit_codes, status

from .agent_world import ROOT, World, eventually, free_port, steps_since_save
from .runs import write_config

STEPS, INTERVAL = 500, 50
QUICK = ("--stall-floor-seconds=2",)
# As the program, but no faster than 20 ms a step: a fault finds its place between two saves on any
# machine.
SLOWLY = """
import runpy, sys, time
from pretrain_llm import script

told = script.report


def report(*given, **named):
    time.sleep(0.02)
    told(*given, **named)


script.report = report
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Calm:
    """The same program in a run of its own, under nobody: what the agents' is to be equal to."""

    def __init__(self, volume: Path) -> None:
        self.run = script_run(volume)
        file = write_config(self.run, volume / "run.json")
        port = str(free_port())
        self._ranks = [self._started(rank, file, port) for rank in range(2)]

    def _started(self, rank: int, file: Path, port: str) -> subprocess.Popen[bytes]:
        variables = {
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "PYTHONPATH": str(ROOT / "llm"),
            environment.CONFIG: str(file),
        }
        return subprocess.Popen(self.run.script.command, env=os.environ | variables)

    def wait(self) -> list[int]:
        return [rank.wait(180) for rank in self._ranks]

    def close(self) -> None:
        for rank in self._ranks:
            rank.kill()
            rank.wait()


def script_run(volume: Path) -> config.ScriptRunConfig:
    example = str(ROOT / "examples/script/train.py")
    program = (sys.executable, "-c", SLOWLY, example, str(STEPS))
    return config.ScriptRunConfig(
        run="script",
        volume=str(volume),
        nodes=config.NodesConfig(count=2, spares=0, devices_per_node=1, device="cpu"),
        checkpoint=config.CheckpointConfig(keep_latest=2, interval=INTERVAL),
        script=config.ScriptConfig(program, STEPS, working_directory=str(volume)),
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calm]:
    """Runs beside the other."""
    calm = Calm(tmp_path_factory.mktemp("calm"))
    try:
        yield calm
    finally:
        calm.close()


@pytest.fixture(scope="module")
def world(calm: Calm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(script_run(tmp_path_factory.mktemp("hit")), None, None, QUICK)
    try:
        yield world
    finally:
        world.close()


def test_agent_drained_script_saves_the_step_it_is_in(world: World) -> None:
    before = world.stepping(above=30)
    leaving = world.members()[1]
    world.agents[leaving].terminate()
    assert world.agents[leaving].wait(30) == exit_codes.SAVED
    # A new one of the same name before the other has saved, too, would be a restart.
    world.seen(lambda s: s.broken, "both have saved")
    world.start_agent(int(leaving[-1]), leaving)

    incident = world.recovered(before.round).incidents[-1]
    assert incident.evidence == status.STOP_REQUESTED
    assert incident.resumed_step == incident.last_step, "no step is lost"


def test_worker_killed_script_goes_on_from_its_own_checkpoint(world: World) -> None:
    now = world.stepping().progress
    assert now
    before = world.seen(
        lambda s: bool(
            s.latest_checkpoint
            and s.progress
            and s.progress.step > now.step  # told just now
            and s.latest_checkpoint.step % INTERVAL == 0
            and 5 < steps_since_save(s) < INTERVAL - 15
        ),
        "steps after a save, and far from the next",
    )
    world.kill_worker(world.members()[1], 0)
    after = world.recovered(before.round)
    assert after.incidents[-1].evidence == status.WORKER_EXIT
    assert after.incidents[-1].resumed_step
    assert after.incidents[-1].resumed_step % INTERVAL == 0
    assert world.seen(lambda s: s.replay.steps > 0, "replay").replay.max_loss_difference == 0


def test_worker_stopped_is_seen_by_its_steps_and_the_others_stack_is_kept(world: World) -> None:
    before = world.stepping(above=30)
    os.kill(world.worker_pids(world.members()[1])[0], signal.SIGSTOP)
    incident = world.recovered(before.round).incidents[-1]
    assert (incident.evidence, incident.suspects[0].rank) == (status.STALLED, 1)
    stack = Path(world.config.layout.stacks) / f"1-{incident.round}-0.txt"
    eventually(stack.exists, "the waiting rank's stack", 5)
    assert "examples/script/train.py" in stack.read_text()


def test_run_that_failed_ends_as_one_that_did_not(world: World, calm: Calm) -> None:
    assert [agent.wait(180) for agent in world.agents.values()] == [0, 0]
    assert calm.wait() == [0, 0]
    progress = world.seen(lambda s: s.finished, "the end").progress
    assert progress
    assert progress.step == STEPS
    assert progress.loss < 0.5 * progress.initial_loss
    roots = [Path(run.layout.checkpoints) for run in (world.config, calm.run)]
    assert [folders.steps(root) for root in roots] == [(STEPS - INTERVAL, STEPS)] * 2
    manifests = [folders.found(root, STEPS).manifest for root in roots]
    assert manifests[0]
    assert manifests[1]
    assert manifests[0].files == manifests[1].files, "bit for bit"
