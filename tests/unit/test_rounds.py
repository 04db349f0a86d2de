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
    AgentReport,
    Carried,
)
from pretrain_llm.coordinator import rounds, stalls
from pretrain_llm.coordinator.rounds import Policy, State
from pretrain_llm.coordinator.stalls import Patience

POLICY = Policy(nodes=2, spares=1)
T0 = 1000.0


def report(name: str, state: str = WAITING, **fields: object) -> AgentReport:
    slot = "abcdef".index(name)
    known = {"agent": name, "incarnation": f"{name}-1", "attempt": 1, "slot": slot, "node": name}
    return AgentReport(**{**known, "state": state, "time": T0, **fields})


def told(state: State, now: float, *reports: AgentReport) -> State:
    for each in reports:
        state = rounds.reported(state, each, now)
    return rounds.ticked(state, now)


def passed(state: State, start: float, end: float, *reports: AgentReport) -> State:
    """The state after the reports were repeated every half second, and the clock ticked."""
    now = start
    while now < end:
        now = min(end, now + 0.5)
        state = told(state, now, *reports)
    return state


def fresh(policy: Policy = POLICY) -> State:
    return rounds.initial(policy, T0)


def running(*names: str, number: int = 1, **fields: object) -> list[AgentReport]:
    return [report(name, RUNNING, round=number, **fields) for name in names]


def in_round(policy: Policy = POLICY) -> State:
    """Round 1 of a and b at T0, with c as the spare."""
    state = told(fresh(policy), T0, report("a"), report("b"), report("c"))
    return told(state, T0, *running("a", "b"))


def faulted(state: State, name: str, number: int, now: float, *, is_echo: bool = False) -> State:
    return rounds.faulted(state, name, number, now, is_echo=is_echo)


def members(state: State) -> tuple[str, ...]:
    return state.round.members if state.round and not state.round.broken else ()


def evidence(state: State) -> tuple[str, str | None] | None:
    broken = state.ended.broken if state.ended else None
    return (broken.evidence, broken.agent) if broken else None


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


# Shrink and grow: up to four agents, rounds of 4, 2 or 1

ELASTIC = Policy(
    nodes=4,
    spares=0,
    patience=Patience(floor_seconds=600, quiet_seconds=900),  # the rounds here stand still
    fewer_nodes=(2, 1),
    shrink_after_seconds=20,
)


def waiting(*names: str, number: int = 1, **fields: object) -> list[AgentReport]:
    return [report(name, WAITING, round=number, **fields) for name in names]


def in_full_round() -> State:
    state = told(fresh(ELASTIC), T0, *waiting("a", "b", "c", "d", number=0))
    return told(state, T0, *running("a", "b", "c", "d"))


def after_loss(*lost: str) -> State:
    """The full round made five steps, lost agents, and the others wait since about T0 + 4."""
    left = [name for name in "abcd" if name not in lost]
    state = rounds.stepped(passed(in_full_round(), T0, T0 + 3.5, *running(*left)), 5)
    return told(state, T0 + 4, *waiting(*left))


@pytest.mark.parametrize(
    ("lost", "seconds", "expected"),
    [
        pytest.param("b", 19.5, (), id="waits for a replacement first"),
        pytest.param("b", 20, ("a", "c"), id="three are no legal size: the largest that is"),
        pytest.param("bd", 20, ("a", "c"), id="survivors keep their order"),
        pytest.param("abd", 20, ("c",), id="down to the smallest"),
        pytest.param("abcd", 60, (), id="nobody is left"),
    ],
)
def test_lost_members_round_shrinks_after_a_while(
    lost: str, seconds: float, expected: tuple[str, ...]
) -> None:
    left = waiting(*(name for name in "abcd" if name not in lost))
    state = passed(after_loss(*lost), T0 + 4, T0 + 4 + seconds, *left)
    assert members(state) == expected


def test_lost_members_spare_that_waited_for_long_waits_for_others_too() -> None:
    state = told(fresh(replace(ELASTIC, spares=1)), T0, *waiting("a", "b", "c", "d", "e", number=0))
    state = rounds.stepped(told(state, T0, *running("a", "b", "c", "d")), 5)
    state = passed(state, T0, T0 + 100, *running("a", "b", "c", "d"), report("e"))
    state = passed(state, T0 + 100, T0 + 123, report("e"))
    assert members(state) == ()
    assert members(passed(state, T0 + 123, T0 + 124, report("e"))) == ("e",)


def test_lost_member_not_elastic_waits_for_ever() -> None:
    state = passed(in_round(replace(POLICY, spares=0)), T0, T0 + 500, *running("a"))
    state = passed(state, T0 + 500, T0 + 900, *waiting("a"))
    assert (members(state), state.waiting_for) == ((), "2 agents: 1 wait, 0 prepare")


def test_lost_member_replaced_in_time_round_is_whole_again() -> None:
    state = passed(after_loss("b"), T0 + 4, T0 + 20, *waiting("a", "c", "d"))
    assert state.waiting_for is not None
    assert state.waiting_for.endswith("3 wait, 0 prepare; 20 s after the last has come, 2 go on")
    assert members(told(state, T0 + 20.1, report("e"))) == ("a", "e", "c", "d")


def test_lost_members_one_replaced_the_others_are_waited_for_anew() -> None:
    state = told(after_loss("b", "c", "d"), T0 + 20, report("e"), *waiting("a"))
    left = (*waiting("a"), report("e"))
    state = passed(state, T0 + 20, T0 + 39.5, *left)
    assert members(state) == ()
    assert members(passed(state, T0 + 39.5, T0 + 40, *left)) == ("a", "e")


def shrunk(step: int = 6) -> State:
    """Round 2 of a and c, formed at about T0 + 24, which made a new step."""
    left = waiting("a", "c", "d")
    state = passed(after_loss("b"), T0 + 4, T0 + 24, *left)
    state = told(state, T0 + 24, *running("a", "c", number=2), *waiting("d"))
    return after_step(state, step, T0 + 24)


def after_step(state: State, step: int, now: float, *, is_last: bool = False) -> State:
    number = state.round.number if state.round else 0
    state = rounds.stepped(state, step)
    return rounds.paced(
        state, number, lambda pace: stalls.stepped(pace, step, 0.1, now, is_last=is_last)
    )


IN_SHRUNK = (*running("a", "c", number=2), *waiting("d"))


def drains(state: State) -> bool:
    return state.round is not None and state.round.makes_room


def test_shrunk_round_worker_fails_next_round_does_not_wait() -> None:
    state = told(faulted(shrunk(), "c", 2, T0 + 25), T0 + 25, *waiting("a", "c", number=2))
    assert members(state) == ("a", "c")


@pytest.mark.parametrize(
    ("arrived", "step", "is_last", "seconds", "expected"),
    [
        pytest.param("b", 6, False, 1, True, id="all are back: at once"),
        pytest.param("", 6, False, 99, False, id="three are no legal size"),
        pytest.param("b", 5, False, 99, False, id="no step further than before the loss"),
        pytest.param("b", 6, True, 99, False, id="no step is left"),
    ],
)
def test_shrunk_round_nodes_back_drains(
    arrived: str, step: int, is_last: bool, seconds: float, expected: bool
) -> None:
    state = after_step(shrunk(step), step, T0 + 24, is_last=is_last)
    reports = (*IN_SHRUNK, *(report(name, incarnation=f"{name}-2") for name in arrived))
    state = passed(state, T0 + 24, T0 + 24 + seconds, *reports)
    assert drains(state) == expected
    assert members(state) == ("a", "c")


def test_shrunk_round_some_nodes_back_grows_only_after_a_while() -> None:
    state = passed(after_loss("b", "c", "d"), T0 + 4, T0 + 24, *waiting("a"))
    state = after_step(told(state, T0 + 24, *running("a", number=2)), 6, T0 + 24)
    reports = (*running("a", number=2), report("c"))
    state = passed(state, T0 + 24, T0 + 43.5, *reports)
    assert not drains(state)
    assert drains(passed(state, T0 + 43.5, T0 + 44, *reports))


def growing() -> State:
    return told(shrunk(), T0 + 25, *IN_SHRUNK, report("b", incarnation="b-2"))


def test_growing_round_all_saved_next_is_larger_and_nobody_is_charged() -> None:
    state = told(growing(), T0 + 26, *waiting("a", number=2, saved=True))
    assert members(state) == ("a", "c")
    state = told(state, T0 + 26, *waiting("c", number=2, saved=True))
    assert evidence(state) == (status.MORE_NODES, None)
    assert (members(state), state.barren_rounds) == (("a", "c", "b", "d"), 0)


def test_growing_round_newcomer_gone_meanwhile_goes_on_as_it_was() -> None:
    state = told(growing(), T0 + 25.5, report("b", LEFT, incarnation="b-2"))
    state = told(state, T0 + 26, *waiting("a", "c", number=2, saved=True))
    assert members(state) == ("a", "c")


def test_growing_round_is_not_hurried() -> None:
    """A member that must leave has its pod's grace; a larger round can wait for a large save."""
    patience = ELASTIC.patience.quiet_seconds
    state = passed(growing(), T0 + 25, T0 + 25 + patience, *IN_SHRUNK)
    assert evidence(state) == (status.LEASE_EXPIRED, "b")
    state = passed(state, T0 + 25 + patience, T0 + 27 + patience, *IN_SHRUNK)
    assert evidence(state) == (status.MORE_NODES, None)


def test_growing_round_worker_fails_is_a_fault() -> None:
    assert evidence(faulted(growing(), "a", 2, T0 + 26)) == (status.WORKER_EXIT, "a")


def test_growing_round_is_told_to_the_agents_at_once() -> None:
    assert rounds.view_key(growing()) != rounds.view_key(shrunk())
