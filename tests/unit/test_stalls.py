"""When a round counts as stalled, whom its stacks blame, and what the incident says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract import protocol, status
from pretrain_llm.contract.protocol import AgentEvent
from pretrain_llm.contract.reports import SavingReport, StackReport, WorkerReport
from pretrain_llm.coordinator import ledger, stalls, suspects
from pretrain_llm.coordinator.stalls import Pace, Patience

from .test_coordinator_incidents import T0, Run, restored, step

PATIENCE = Patience(factor=10, floor_seconds=8, quiet_seconds=100)
STEPPING = Pace(moved_at=T0, step=5, median_step_seconds=0.3)


@pytest.mark.parametrize(
    ("pace", "limit_seconds"),
    [
        pytest.param(Pace(T0), 100, id="no step yet: workers start"),
        pytest.param(STEPPING, 8, id="short steps: the floor"),
        pytest.param(replace(STEPPING, median_step_seconds=2.0), 20, id="long steps: the factor"),
        pytest.param(replace(STEPPING, saving_step=5), 100, id="saves after its last step"),
        pytest.param(replace(STEPPING, saving_step=6), 100, id="told of the save before the step"),
        pytest.param(replace(STEPPING, saving_step=4), 8, id="stepped again after the save"),
        pytest.param(replace(STEPPING, is_last=True), 100, id="closes after the last step"),
    ],
)
def test_stall_limit_depends_on_what_is_expected(pace: Pace, limit_seconds: float) -> None:
    assert stalls.limit_seconds(PATIENCE, pace) == limit_seconds
    assert not stalls.is_stalled(PATIENCE, pace, T0 + limit_seconds)
    assert stalls.is_stalled(PATIENCE, pace, T0 + limit_seconds + 0.1)


def stack(rank: int, *frames: str, state: str = "S", round_number: int = 1) -> StackReport:
    path = f"/v/logs/stacks/1-1-{rank}.txt" if frames else None
    return StackReport(round_number, rank, state, frames, path)


WAITING = ("torch/distributed/distributed_c10d.py:9 all_reduce", "a.py:1 step")
BARRIER = ("torch/distributed/distributed_c10d.py:7 barrier", "a.py:2 save")
LOADING = ("data/packed.py:3 sample", "a.py:4 step")


@pytest.mark.parametrize(
    ("stacks", "ranks"),
    [
        pytest.param([], [], id="nobody answered"),
        pytest.param([stack(0, *WAITING), stack(1, state="T")], [1], id="stopped"),
        pytest.param([stack(0, state="D"), stack(1, state="T")], [1], id="stopped before silent"),
        pytest.param([stack(0, *WAITING), stack(1, state="D")], [1], id="stuck in the kernel"),
        pytest.param([stack(0, *WAITING), stack(1, state="")], [1], id="gone"),
        pytest.param([stack(1, *LOADING), stack(0, *WAITING)], [1], id="outside of the collective"),
        pytest.param([stack(r, *WAITING) for r in (0, 1)] + [stack(2, *BARRIER)], [2], id="other"),
        pytest.param([stack(0, *WAITING), stack(1, *BARRIER)], [], id="two ranks, two collectives"),
        pytest.param([stack(0, *WAITING), stack(1, *WAITING)], [], id="all alike"),
        pytest.param([stack(0, *LOADING), stack(1, *LOADING)], [], id="all outside, alike"),
        pytest.param([stack(r, state="T") for r in range(9)], [0, 1, 2, 3], id="bounded"),
    ],
)
def test_suspects_are_who_stands_elsewhere(stacks: list[StackReport], ranks: list[int]) -> None:
    assert [suspicion.rank for suspicion in suspects.suspicions(stacks)] == ranks


def stalled(*before: AgentEvent) -> Run:
    """A run that made step 5 at T0 + 1, was told `before`, and stands still for 8.5 s."""
    run = Run()
    run.report("a", T0 + 1, step(5, T0 + 1), *before)
    now = T0 + 1
    while now < T0 + 9.5:
        now += 0.5
        run.report("a", now)
        run.report("b", now)
    return run


def test_round_without_steps_is_broken_and_agents_are_asked_for_stacks() -> None:
    run = stalled()
    view = ledger.view(run.ledger)
    assert (view.broken, view.stalled) == (True, True)
    incident = run.incident
    assert (incident.evidence, incident.time) == (status.STALLED, T0 + 1)
    assert incident.detect_seconds == 8.5


def test_round_that_saves_is_not_stalled() -> None:
    saving = AgentEvent(worker=WorkerReport(0, 1, saving=SavingReport(5, T0 + 1)))
    run = stalled(saving)
    assert run.status.incidents == ()


def test_round_that_has_staged_its_save_and_makes_no_step_is_stalled() -> None:
    begun, over = (
        AgentEvent(worker=WorkerReport(0, 1, saving=SavingReport(5, T0 + 1, over=is_over)))
        for is_over in (False, True)
    )
    assert stalled(begun, over).incident.evidence == status.STALLED
    assert stalled(over, begun).status.incidents == ()


@pytest.mark.parametrize(("saved_step", "limit_seconds"), [(5, 8), (4, 100)])
def test_end_of_a_save_counts_for_that_save_and_those_before_it(
    saved_step: int, limit_seconds: float
) -> None:
    pace = stalls.stepping_on(replace(STEPPING, saving_step=5), saved_step, T0 + 1)
    assert stalls.limit_seconds(PATIENCE, pace) == limit_seconds


def test_round_of_a_coordinator_that_stood_still_is_not_stalled() -> None:
    run = Run()
    run.report("a", T0 + 1, step(5, T0 + 1))
    run.ledger = ledger.ticked(run.ledger, T0 + 60)
    assert run.status.incidents == ()


def test_draining_round_is_not_stalled() -> None:
    run = Run()
    run.report("a", T0 + 1, step(5, T0 + 1))
    run.report("b", T0 + 1, state=protocol.LEAVING)
    for halves in range(3, 40):
        run.report("a", T0 + halves / 2)
        run.report("b", T0 + halves / 2, state=protocol.LEAVING)
    assert run.status.incidents == ()


def test_stalled_incident_names_the_suspect_its_node_and_the_stacks_and_keeps_them() -> None:
    run = stalled()
    run.report("a", T0 + 9.6, AgentEvent(stack=stack(0, *WAITING)))
    run.report("b", T0 + 9.7, AgentEvent(stack=stack(1, *LOADING)))
    first = run.incident
    assert [suspect.rank for suspect in first.suspects] == [1]
    assert first.suspects[0].frames == LOADING
    assert (first.agent, first.node, first.stacks_path) == ("b", "node-b", "/v/logs/stacks")

    run.wait_again(T0 + 10)
    run.report("a", T0 + 12, restored(5, T0 + 12), step(6, T0 + 12.5, round_number=2))
    run.report("a", T0 + 13, AgentEvent(stack=stack(1, *WAITING)))
    last = run.incident
    assert (last.suspects, last.agent, last.round) == (first.suspects, "b", 1)
    assert last.first_step_seconds is not None


def test_stack_of_another_round_is_ignored() -> None:
    run = stalled()
    run.report("a", T0 + 9.6, AgentEvent(stack=stack(0, state="T", round_number=7)))
    assert run.incident.suspects == ()
