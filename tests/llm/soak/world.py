"""Runs one run to its end in real agents, coordinator and torchtitan workers, and strikes it.

Processes that end are started anew, as the Job and the Deployment do on a cluster.
"""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pretrain_llm.agent import settings
from pretrain_llm.contract.config import MemoryConfig, RunConfig
from pretrain_llm.contract.status import Incident

from ..agent_world import World, eventually
from ..recording_worker import record_path
from ..runs import mesh, run_config, write_data
from . import schedule
from .outcome import Line, Outcome, line
from .schedule import INTERVAL, NODES, Strike

WORKER = "tests.llm.recording_worker:main"
# A worker whose writes never end is only seen after the quiet time, 30 minutes by default.
COORDINATOR_OPTIONS = ("--stall-quiet-seconds", "60")
FROZEN_SECONDS = 5.0
STEP_SECONDS = 600.0  # to the step of the next strike, on a machine that does much else
END_SECONDS = 1200.0
_OPTIONS = {"slow-rank": ("--seconds=0.2", "--steps=10")}

Tell = Callable[[str], None]


class Keeper(threading.Thread):
    """Starts anew what has ended before its time, and keeps every incident that is ever told.

    A coordinator tells only of its own incidents and of the newest before it.
    """

    def __init__(self, world: World) -> None:
        super().__init__(name="keeper", daemon=True)
        self._world, self._done = world, threading.Event()
        self._incidents: dict[int, Incident] = {}  # by round, whose numbers never come twice

    def run(self) -> None:
        while not self._done.wait(0.1):
            self._look()
            self._restart()

    def _look(self) -> None:
        status = self._world.status()
        for incident in status.incidents if status else ():
            self._incidents[incident.round] = incident

    def _restart(self) -> None:
        world = self._world
        if world.coordinator.poll() is not None:
            world.start_coordinator()
        for slot, (name, agent) in enumerate(sorted(world.agents.items())):
            if agent.poll() not in (None, 0):
                world.start_agent(slot, name)

    def stop(self) -> tuple[Incident, ...]:
        """What it has kept, in order of rounds."""
        self._done.set()
        self.join()
        self._look()
        return tuple(incident for _, incident in sorted(self._incidents.items()))


def soak_run(volume: Path, steps: int, *, in_memory: bool) -> RunConfig:
    """Two nodes and a spare, with text enough that no sample comes twice."""
    run = run_config(
        volume,
        parallelism=mesh(shard=NODES),
        nodes={"count": NODES, "spares": 1},
        training={"steps": steps},
        checkpoint={
            "interval": INTERVAL,
            "keep_latest": 3,
            "memory": MemoryConfig(INTERVAL // 2) if in_memory else None,
        },
    )
    training = run.training
    write_data(run.layout, tokens=2 * steps * training.global_batch_size * training.sequence_length)
    return run


def outcome(run: RunConfig, strikes: Sequence[Strike] = (), tell: Tell = print) -> Outcome:
    """Of the run, trained to its end. Raises AssertionError with the logs' ends."""
    world = World(
        run,
        WORKER,
        settings.PRELOAD,
        COORDINATOR_OPTIONS,
        allows_faults=True,
        vanished_seconds=settings.VANISHED_SECONDS,  # a new coordinator hears of the end
    )
    keeper = Keeper(world)
    keeper.start()
    try:
        for struck in strikes:
            strike(world, struck, tell)
        world.seen(lambda status: status.finished, "the end of the run", END_SECONDS)
        incidents = keeper.stop()
        return Outcome(recorded(world.folder), incidents)
    finally:
        keeper.stop()
        world.close()


def recorded(folder: Path) -> tuple[Line, ...]:
    return tuple(
        line(rank, text)
        for rank in range(NODES)
        for text in record_path(folder, rank).read_text().splitlines()
    )


def strike(world: World, planned: Strike, tell: Tell) -> None:
    if planned.after_seconds is None:
        world.stepping(above=planned.step, seconds=STEP_SECONDS)
        name = world.members()[planned.member]
    else:
        time.sleep(planned.after_seconds)  # the fault comes then, whatever the run is doing
        name = f"pod-{planned.member}"
    tell(f"  after step {planned.step}: {planned.kind}, {name}")
    if planned.kind in schedule.IN_POD:
        options = _OPTIONS.get(planned.kind, ())
        eventually(lambda: world.injects(name, planned.kind, *options), f"{planned.kind} in {name}")
    else:
        _OF_WORLD[planned.kind](world, name)


def _freeze_coordinator(world: World, _name: str) -> None:
    world.coordinator.send_signal(signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)  # the fault itself
    world.coordinator.send_signal(signal.SIGCONT)


def _lose_node(world: World, name: str) -> None:
    world.agents[name].kill()
    shutil.rmtree(world.memory(name), ignore_errors=True)


def _lose_members(world: World, _name: str) -> None:
    for name in [f"pod-{slot}" for slot in range(NODES)]:
        _lose_node(world, name)


_OF_WORLD: Mapping[str, Callable[[World, str], None]] = {
    schedule.COORDINATOR_KILLED: lambda world, _name: world.coordinator.kill(),
    schedule.COORDINATOR_FROZEN: _freeze_coordinator,
    schedule.POD_DRAINED: lambda world, name: world.agents[name].terminate(),
    schedule.NODE_LOST: _lose_node,
    schedule.TWO_NODES_LOST: _lose_members,
}
