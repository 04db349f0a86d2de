"""The agent with the real worker: torchtitan on two nodes, and faults."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pretrain_llm.agent import settings
from pretrain_llm.contract import status

from .agent_world import World, eventually, steps_since_save
from .runs import mesh, run_config, write_data


def test_training_worker_stopped_is_named_and_the_others_stack_is_kept(volume: Path) -> None:
    run = run_config(
        volume,
        parallelism=mesh(shard=2),
        nodes={"count": 2},
        training={"steps": 100_000},
        checkpoint={"interval": None, "min_interval": 5, "max_interval": 40},
    )
    write_data(run.layout, tokens=80_000)
    world = World(run, settings.WORKER, settings.PRELOAD)
    try:
        # Saves after 5 steps until they are measured, then as seldom as the spec allows.
        before = world.seen(
            lambda s: s.cadence.interval_steps == 40 and steps_since_save(s) in range(4, 33),
            "the interval",
        )
        os.kill(world.worker_pids(world.members()[1])[0], signal.SIGSTOP)
        after = world.recovered(before.round)
        assert (after.cadence.interruptions, after.cadence.interval_steps) == (1, 40)
        incident = after.incidents[-1]
        assert incident.evidence == status.STALLED
        assert incident.suspects[0].rank == 1
        assert incident.suspects[0].reason == "its process is stopped"
        stack = Path(run.layout.stacks) / f"1-{incident.round}-0.txt"
        eventually(stack.exists, "the waiting rank's stack", 5)
        assert "torchtitan/trainer.py" in stack.read_text()
    finally:
        world.close()
