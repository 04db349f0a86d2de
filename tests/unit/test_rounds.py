"""Every rule of coordinator/rounds.py as one row: what is told, and what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract import status
from pretrain_llm.contract.protocol import (
    FINISHED,
    LEAVING,
    LEFT,
    PREPARING,
    RUNNING,
    WAITING,
    AgentEvent,
    AgentReport,
    Carried,
)
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.coordinator import rounds
from pretrain_llm.coordinator.rounds import Policy

from .rounds_world import (
    T0,
    evidence,
    faulted,
    fresh,
    in_round,
    members,
    passed,
    report,
    running,
    told,
)


def test_first_round_all_waiting_takes_lowest_slots() -> None:
    state = told(fresh(), T0, report("c"), report("b"), report("a"))
    assert members(state) == ("a", "b")
    assert state.highest_round == 1


@pytest.mark.parametrize(
    ("reports", "after_seconds", "expected"),
    [
        pytest.param(["a", "b"], 9.0, (), id="some missing: listens for an older round"),
        pytest.param(["a", "b"], 10.0, ("a", "b"), id="settled: named without the spare"),
        pytest.param(["b", "c"], 10.0, ("b", "c"), id="slots need not be the first"),
        pytest.param(["a"], 60.0, (), id="too few: never smaller than nodes"),
    ],
)
def test_first_round_settling(
    reports: list[str], after_seconds: float, expected: tuple[str, ...]
) -> None:
    state = passed(fresh(), T0, T0 + after_seconds, *(report(name) for name in reports))
    assert members(state) == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(report("c", PREPARING, incarnation="c-2"), None, id="spare restarts"),
        pytest.param(report("c", LEFT), None, id="spare leaves"),
        pytest.param(report("b", WAITING, round=0), None, id="has not picked its round up yet"),
        pytest.param(report("b", FINISHED, round=1), None, id="one member finished"),
        pytest.param(report("b", LEAVING, round=1), None, id="leaving: the others are saving"),
        pytest.param(
            report("b", PREPARING, incarnation="b-2"),
            (status.AGENT_RESTARTED, "b"),
            id="member restarts",
        ),
        pytest.param(
            report("b", WAITING, round=1), (status.WORKER_EXIT, "b"), id="member joins again"
        ),
        pytest.param(
            report("b", WAITING, round=1, saved=True), None, id="saved: a is still saving"
        ),
    ],
)
def test_running_round_report_breaks_it_or_not(
    event: AgentReport, expected: tuple[str, str] | None
) -> None:
    assert evidence(told(in_round(), T0 + 1, event)) == expected


def test_running_round_fault_of_another_round_is_ignored() -> None:
    assert evidence(faulted(in_round(), "b", 7, T0 + 1)) is None
    assert evidence(faulted(in_round(), "b", 1, T0 + 1)) == (status.WORKER_EXIT, "b")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3.0, None), (3.6, (status.LEASE_EXPIRED, "b"))],
)
def test_member_silent_lease_ends(seconds: float, expected: tuple[str, str] | None) -> None:
    state = passed(in_round(), T0, T0 + seconds, *running("a"), report("c"))
    assert evidence(state) == expected


def test_member_hung_up_lease_ends_early() -> None:
    state = rounds.hung_up(in_round(), "b", T0)
    assert evidence(passed(state, T0, T0 + 1.0, *running("a"))) is None
    assert evidence(passed(state, T0, T0 + 1.5, *running("a"))) == (status.LEASE_EXPIRED, "b")


def test_member_hung_up_and_back_keeps_its_lease() -> None:
    state = told(rounds.hung_up(in_round(), "b", T0), T0 + 0.2, *running("b"))
    assert evidence(passed(state, T0 + 0.2, T0 + 3.0, *running("a"))) is None


def test_finished_member_silent_does_not_break() -> None:
    state = told(in_round(), T0, report("b", FINISHED, round=1))
    assert evidence(passed(state, T0, T0 + 20, *running("a"))) is None


def test_stalled_clock_extends_leases() -> None:
    """A coordinator that stood still for a minute knows nothing of its agents."""
    state = rounds.ticked(in_round(), T0 + 60)
    assert evidence(state) is None
    assert evidence(passed(state, T0 + 60, T0 + 64)) is not None


def test_lost_member_spare_takes_its_rank() -> None:
    state = passed(in_round(), T0, T0 + 3.5, *running("b"), report("c"))
    assert state.waiting_for == "b to stop the workers of the broken round"
    state = told(rounds.stepped(state, 5), T0 + 3.6, report("b", WAITING, round=1), report("c"))
    assert members(state) == ("c", "b")


def test_failed_worker_same_members_keep_ranks() -> None:
    state = rounds.stepped(faulted(in_round(), "b", 1, T0 + 1), 5)
    state = told(state, T0 + 1, report("b", WAITING, round=1))
    assert members(state) == ()
    state = told(state, T0 + 1.1, report("a", WAITING, round=1))
    assert (members(state), state.round and state.round.number) == (("a", "b"), 2)


def test_restarted_member_preparing_spare_does_not_wait_for_it() -> None:
    state = told(in_round(), T0 + 1, report("b", PREPARING, incarnation="b-2"))
    state = told(rounds.stepped(state, 5), T0 + 1.1, report("a", WAITING, round=1))
    assert members(state) == ("a", "c")


def test_restarted_member_no_spare_waits_for_it() -> None:
    state = told(in_round(), T0, report("c", LEFT))
    state = told(state, T0 + 1, report("b", PREPARING, incarnation="b-2"))
    back = (report("a", WAITING, round=1), report("b", PREPARING, incarnation="b-2"))
    state = passed(state, T0 + 1, T0 + 20, *back)
    assert state.waiting_for == "2 agents: 1 wait, 1 prepare"
    state = told(state, T0 + 20.5, report("b", WAITING, incarnation="b-2"))
    assert members(state) == ("a", "b")


@pytest.mark.parametrize(
    ("barren", "seconds"), [(0, 0), (1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (99, 30)]
)
def test_back_off_barren_rounds_doubles_up_to_a_cap(barren: int, seconds: float) -> None:
    assert rounds.back_off_seconds(barren) == seconds


def test_next_round_without_progress_backs_off() -> None:
    again = (report("a", WAITING, round=1), report("b", WAITING, round=1))
    state = told(faulted(in_round(), "b", 1, T0), T0 + 0.9, *again)
    assert state.waiting_for == "the back-off after 1 rounds without a step of progress"
    state = told(state, T0 + 1.0, *again)
    assert (members(state), state.barren_rounds) == (("a", "b"), 1)


def test_next_round_late_step_counts_as_progress() -> None:
    """The last steps of a round are reported after its end."""
    again = (report("a", WAITING, round=1), report("b", WAITING, round=1))
    state = told(faulted(in_round(), "b", 1, T0), T0 + 0.1, *again)
    assert members(state) == ()
    state = told(rounds.stepped(state, 1), T0 + 0.2, *again)
    assert (members(state), state.barren_rounds) == (("a", "b"), 0)


def test_replayed_step_is_not_progress() -> None:
    state = rounds.stepped(replace(in_round(), highest_step=10), 10)
    state = replace(state, round=state.round and replace(state.round, highest_step_before=10))
    again = (report("a", WAITING, round=1), report("b", WAITING, round=1))
    state = told(faulted(state, "b", 1, T0), T0 + 0.5, *again)
    assert members(state) == ()


def test_draining_all_saved_breaks_without_charge() -> None:
    state = told(in_round(), T0 + 1, report("b", LEAVING, round=1))
    state = told(state, T0 + 2, report("b", LEFT, round=1))
    assert evidence(state) is None, "a is still saving"
    state = told(state, T0 + 2.5, report("a", WAITING, round=1, saved=True))
    assert evidence(state) == (status.STOP_REQUESTED, "b")
    assert (members(state), state.barren_rounds) == (("a", "c"), 0)


@pytest.mark.parametrize(
    ("boundaries", "asked", "incident"),
    [
        ((6,), False, None),
        ((6,), True, status.STOP_REQUESTED),
        ((7,), False, status.STOP_REQUESTED),
    ],
)
def test_all_saved_unasked_at_a_boundary_next_round_starts_without_an_incident(
    boundaries: tuple[int, ...], asked: bool, incident: str | None
) -> None:
    state = in_round()
    state = replace(state, policy=replace(state.policy, boundaries=boundaries))
    state = rounds.paced(state, 1, lambda pace: replace(pace, step=6))
    state = told(state, T0 + 1, report("a", WAITING, round=1, saved=True))
    assert state.round
    assert (state.round.number, state.round.broken) == (1, None), "b has not saved yet"
    last = report("b", LEFT, round=1) if asked else report("b", WAITING, round=1, saved=True)
    state = told(state, T0 + 1.5, last)
    assert evidence(state) == (incident and (incident, "a"))
    assert state.round
    assert (state.round.number, state.barren_rounds) == (2, 0)


@pytest.mark.parametrize(
    ("is_echo", "expected"),
    [(True, (status.STOP_REQUESTED, "b")), (False, (status.WORKER_EXIT, "a"))],
)
def test_draining_worker_fails_only_a_genuine_failure_is_one(
    is_echo: bool, expected: tuple[str, str]
) -> None:
    state = told(in_round(), T0 + 1, report("b", LEAVING, round=1))
    assert evidence(faulted(state, "a", 1, T0 + 2, is_echo=is_echo)) == expected


def test_draining_never_ending_is_broken_at_the_limit() -> None:
    state = told(in_round(), T0, report("b", LEAVING, round=1))
    both = (*running("a"), report("b", LEAVING, round=1))
    assert evidence(passed(state, T0, T0 + 60, *both)) is None
    state = passed(state, T0, T0 + 61, *both)
    assert evidence(state) == (status.STOP_REQUESTED, "b")


def test_all_members_finished_run_is_finished_for_good() -> None:
    done = (report("a", FINISHED, round=1), report("b", FINISHED, round=1))
    state = told(in_round(), T0 + 1, *done)
    assert state.finished
    state = passed(state, T0 + 1, T0 + 100, report("a", PREPARING, incarnation="a-2"))
    assert state.finished
    assert evidence(state) is None


def adopting(state: str = RUNNING, **fields: object) -> AgentReport:
    known = {"round": 7, "highest_round": 7, "members": ("a", "b"), "formed_at": T0 - 50}
    return report("a", state, **{**known, **fields})


def test_new_coordinator_running_round_is_adopted() -> None:
    carried = Carried(highest_step=40)
    state = told(fresh(), T0 + 1, report("c", highest_round=7), adopting(carried=carried))
    assert members(state) == ("a", "b")
    assert state.round
    assert (state.round.number, state.round.formed_at, state.round.adopted) == (7, T0 - 50, True)
    assert state.round.highest_step_before == 40


def test_new_coordinator_absent_member_is_given_time() -> None:
    state = told(fresh(), T0, adopting())
    assert evidence(passed(state, T0, T0 + 30, adopting())) is None
    assert evidence(passed(state, T0, T0 + 31, adopting())) == (status.LEASE_EXPIRED, "b")


def ending(told: int = 7, **fields: object) -> AgentReport:
    """Of an agent whose workers failed in round `told` while nobody answered."""
    fault = FaultReport(round=told, rank=0, time=T0 - 30, exit_code=1)
    return adopting(WAITING, events=(AgentEvent(fault=fault),), **fields)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        pytest.param(ending(), 7, id="its fault is untold"),
        pytest.param(adopting(WAITING), None, id="it was told: the last coordinator answered"),
        pytest.param(ending(told=6), None, id="of a round before"),
        pytest.param(ending(highest_round=8), None, id="a later round was named"),
        pytest.param(ending(members=("b", "c")), None, id="no member"),
    ],
)
def test_new_coordinator_takes_over_a_round_that_ended_while_nobody_answered(
    report: AgentReport, expected: int | None
) -> None:
    state = rounds.reported(fresh(), report, T0)
    assert (state.round.number if state.round else None) == expected


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param([report("c")], (), id="b may have workers"),
        pytest.param([report("c"), report("b")], ("a", "b"), id="everybody is here"),
    ],
)
def test_new_coordinator_names_no_round_before_it_heard_of_all_members(
    others: list[AgentReport], expected: tuple[str, ...]
) -> None:
    state = rounds.reported(fresh(), ending(), T0)
    state = passed(faulted(state, "a", 7, T0), T0, T0 + 9, adopting(WAITING), *others)
    assert members(state) == expected
    state = passed(state, T0 + 9, T0 + 10, adopting(WAITING), *others)
    assert members(state) == (expected or ("a", "c"))


def test_new_coordinator_adopted_round_that_breaks_is_not_barren() -> None:
    state = rounds.reported(fresh(), ending(carried=Carried(highest_step=40)), T0)
    state = rounds.stepped(faulted(state, "a", 7, T0), 40)
    state = told(state, T0, adopting(WAITING), report("b"), report("c"))
    assert (members(state), state.barren_rounds) == (("a", "b"), 0)


def test_new_coordinator_spare_first_names_no_round() -> None:
    one = fresh(Policy(nodes=1, spares=1))
    state = passed(one, T0, T0 + 9, report("c", highest_round=7))
    assert members(state) == ()
    state = told(state, T0 + 9.5, adopting(members=("a",)))
    assert members(state) == ("a",)


def test_new_coordinator_numbers_go_on() -> None:
    """Spares remember the number even if every member is gone."""
    state = passed(fresh(), T0, T0 + 10, report("b", highest_round=7), report("c"))
    assert state.round
    assert state.round.number == 8


def test_cut_off_member_back_from_an_old_round_does_not_disturb() -> None:
    state = passed(in_round(), T0, T0 + 3.5, *running("b"), report("c"))
    state = told(rounds.stepped(state, 5), T0 + 4, report("b", WAITING, round=1), report("c"))
    state = told(state, T0 + 5, *running("a", number=1, members=("a", "b")))
    assert (members(state), evidence(state)) == (("c", "b"), (status.LEASE_EXPIRED, "a"))


def test_agents_gone_for_long_are_forgotten() -> None:
    state = told(in_round(), T0, report("c", LEFT))
    state = passed(state, T0, T0 + 61, *running("a", "b"))
    assert set(state.agents) == {"a", "b"}


def test_ticked_is_a_fixed_point() -> None:
    state = faulted(in_round(), "b", 1, T0 + 1)
    once = told(state, T0 + 1, report("a", WAITING, round=1))
    assert rounds.ticked(once, T0 + 1) == once
