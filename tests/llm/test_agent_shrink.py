"""Two nodes train, one is lost for good, one goes on, another comes: the run learns the same."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from pretrain_llm.agent import settings
from pretrain_llm.contract import protocol, status
from pretrain_llm.contract.config import RunConfig

from . import poisoned_worker
from .agent_world import World
from .runs import mesh, run_config, write_data
from .worlds import trained

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 200
# One rank adds up in one go what two add up by halves: in float32 the sums differ in their last
# bits, and each step starts from weights that differ by as little. The logs have five decimals.
TOLERANCE_NATS = 5e-5


def _run(volume: Path) -> RunConfig:
    run = run_config(
        volume,
        parallelism=mesh(shard=2),
        nodes={"count": 2, "min": 1, "spares": 1},
        training={"steps": STEPS, "local_batch_size": 2},
        checkpoint={"interval": 20, "keep_latest": 2},
    )
    write_data(run.layout, tokens=80_000)
    return run


def _logged_losses(world: World) -> dict[int, set[float]]:
    """By step: one for each time that it was made."""
    losses: dict[int, set[float]] = {}
    for name in world.agents:
        for step, loss in re.findall(r"step: +(\d+) +loss: +([\d.]+)", world.log(name)):
            losses.setdefault(int(step), set()).add(float(loss))
    return losses


def test_node_lost_run_shrinks_and_grows_with_the_losses_of_an_unfailed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However fast the machine is, the run lasts until the other node has come: 40 ms a step.
    monkeypatch.setenv(poisoned_worker.SLOW, json.dumps({"0": 0.01, "1": 0.01}))
    world = World(
        _run(tmp_path / "failed"),
        "tests.llm.poisoned_worker:main",
        settings.PRELOAD,
        # Long enough for the agents to arrive one after the other on a busy machine.
        coordinator_options=["--shrink-after-seconds", "20"],
    )
    try:
        world.stepping(above=25)
        first, lost = world.members()
        back = next(name for name in world.agents if name not in (first, lost))
        world.seen(lambda s: world.state(s, back) == protocol.WAITING, "the spare is warm")
        world.agents[back].send_signal(signal.SIGSTOP)  # its node is out of reach
        world.seen(lambda s: s.time > _last_seen(s, back) + 3, "its lease has ended")
        world.agents[lost].kill()
        world.agents[lost].wait()

        shrunk = world.seen(lambda s: _sizes(s) == [(2, 1)], "a round of one node")
        world.stepping(above=shrunk.incidents[0].last_step, after_round=shrunk.incidents[0].round)
        world.agents[back].send_signal(signal.SIGCONT)
        grown = world.seen(lambda s: _sizes(s) == [(2, 1), (1, 2)], "a round of two nodes")
        end = world.seen(lambda s: s.finished, "the end")
        assert world.agents[first].wait(60) == 0
        assert world.agents[back].wait(60) == 0
        losses = _logged_losses(world)
    finally:
        world.close()

    assert grown.wanted_nodes == 2
    evidence = [incident.evidence for incident in end.incidents]
    assert evidence == [status.LEASE_EXPIRED, status.MORE_NODES]
    assert end.incidents[1].steps_lost == 0
    assert end.replay.max_loss_difference < TOLERANCE_NATS
    unfailed = trained(_run(tmp_path / "unfailed"), ranks=2).losses
    assert losses.keys() == unfailed.keys()
    for step, found in losses.items():
        for loss in found:
            assert loss == pytest.approx(unfailed[step], abs=TOLERANCE_NATS), step


def _last_seen(document: status.StatusDocument, name: str) -> float:
    return next(agent.last_seen for agent in document.agents if agent.name == name)


def _sizes(document: status.StatusDocument) -> list[tuple[int | None, int | None]]:
    return [(incident.nodes, incident.next_nodes) for incident in document.incidents]
