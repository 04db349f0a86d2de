"""A coordinator, two agents and a spare as real processes: everything that may die, killed in turn.

The tests share one world, because starting one takes most of the time; each leaves it whole.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from pretrain_llm.contract import protocol, status, symptoms
from pretrain_llm.faults import acts

from .agent_world import World, eventually, is_alive, small_run, steps_since_save


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World(small_run(nodes=2, spares=1), allows_faults=True)
    try:
        yield world
    finally:
        world.close()


def test_worker_killed_next_round_has_the_same_agents(world: World) -> None:
    before = world.seen(
        lambda s: 2 < steps_since_save(s) < 18,
        "steps after a save, and far from the next",
    )
    members = world.members()
    world.kill_worker(members[1], 0)

    after = world.recovered(before.round)
    assert world.members() == members
    incident = after.incidents[-1]
    assert (incident.round, incident.evidence) == (before.round, status.WORKER_EXIT)
    assert incident.first_fault
    assert (incident.first_fault.rank, incident.first_fault.signal) == (1, signal.SIGKILL)
    assert incident.agent == members[1]
    assert incident.resumed_step is not None
    assert incident.resumed_step % 25 == 0
    assert incident.last_step >= incident.resumed_step
    assert incident.reschedule_seconds is not None
    assert incident.reschedule_seconds < 5
    replayed = world.seen(lambda s: s.replay.steps > 0, "steps run twice").replay
    assert replayed.max_loss_difference == 0


def test_worker_aborted_its_last_words_name_the_fault(world: World) -> None:
    before = world.stepping()
    name = world.members()[1]
    world.inject(name, "nccl-watchdog")

    first = world.recovered(before.round).incidents[-1].first_fault
    assert first
    assert (first.rank, first.signal, first.error_message) == (1, signal.SIGABRT, None)
    assert first.symptom == symptoms.COLLECTIVE_TIMEOUT
    said = acts.WATCHDOG.format(rank=1)
    assert first.stderr == (said[:300],), "and nothing else of it"
    log = world.log(name)  # where stdout's lines may come between
    assert f"{said}\n" in log
    assert f"{acts.LAST_WORDS}\n" in log


def test_coordinator_killed_round_goes_on_and_recovers_later(world: World) -> None:
    before = world.stepping()
    members, pids = world.members(), [world.worker_pids(name) for name in world.members()]
    assert before.progress
    # Later steps are there: so the agents have the answer to what they told before.
    world.stepping(above=before.progress.step)
    world.coordinator.kill()
    world.coordinator.wait()
    world.start_coordinator()

    after = world.stepping(above=before.progress.step)
    assert after.round == before.round
    assert {i.round for i in after.incidents} <= {i.round for i in before.incidents}
    assert world.members() == members
    assert [world.worker_pids(name) for name in members] == pids
    assert after.progress
    assert after.progress.initial_loss == before.progress.initial_loss
    assert after.replay.steps >= before.replay.steps

    os.kill(pids[0][0], signal.SIGKILL)
    assert world.recovered(before.round).round > before.round


def test_coordinator_killed_in_a_recovery_the_next_one_tells_the_incident(world: World) -> None:
    before, members = world.stepping(), world.members()
    world.kill_worker(members[1], 0)
    number = world.seen(lambda s: s.round > before.round, "the next round").round
    status = world.seen(
        lambda _: all(
            f"round {number} rank {rank} " in world.log(name) for rank, name in enumerate(members)
        ),
        "its workers have met, in the coordinator's store",
    )
    told = next(i for i in status.incidents if i.round == before.round)
    world.coordinator.kill()  # the agents stopped their workers before: they know of the incident
    world.coordinator.wait()
    world.start_coordinator()

    found = world.recovered(before.round).incidents[-1]
    assert (found.round, found.first_fault) == (before.round, told.first_fault)
    assert found.steps_lost is not None


def test_agent_killed_its_worker_dies_and_the_spare_takes_its_rank(world: World) -> None:
    before = world.stepping()
    first, second = world.members()
    worker = world.worker_pids(first)[0]
    world.agents[first].kill()
    world.agents[first].wait()
    eventually(lambda: not is_alive(worker), "the worker dies with its agent", 5)

    after = world.recovered(before.round)
    spare = next(name for name in ("pod-0", "pod-1", "pod-2") if name not in (first, second))
    assert world.members() == (spare, second)
    assert after.incidents[-1].agent == first
    assert after.incidents[-1].evidence == status.LEASE_EXPIRED
    world.start_agent(int(first[-1]), first)
    world.seen(lambda s: world.state(s, first) == protocol.WAITING, f"{first} is the spare")


def test_fork_server_killed_workers_are_started_anew(world: World) -> None:
    before = world.stepping()
    name = world.members()[0]
    worker = world.worker_pids(name)[0]
    with open(f"/proc/{worker}/stat") as stat:
        fork_server = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(fork_server, signal.SIGKILL)
    eventually(lambda: not is_alive(worker), "the worker dies with its fork server", 5)
    world.recovered(before.round)
    assert name in world.members()


def test_metrics_running_carry_run_and_attempt(world: World) -> None:
    world.stepping()
    text = world.get("/metrics").decode()
    assert 'pretrain_run_round{attempt="1",run="small"}' in text
    assert 'pretrain_run_agents{attempt="1",run="small",state="Running"} 2.0' in text


def test_last_step_done_every_agent_ends_with_zero_also_the_spare(world: World) -> None:
    world.stepping()
    (world.folder / "finish").touch()
    codes = {name: agent.wait(30) for name, agent in world.agents.items()}
    assert codes == {"pod-0": 0, "pod-1": 0, "pod-2": 0}
    assert world.seen(lambda s: s.finished, "finished")
