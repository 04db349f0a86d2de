"""Shrink and grow: up to four agents, rounds of 4, 2 or 1."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract import status
from pretrain_llm.contract.protocol import (
    LEFT,
    WAITING,
    AgentReport,
)
from pretrain_llm.coordinator import rounds, stalls
from pretrain_llm.coordinator.rounds import Policy, State
from pretrain_llm.coordinator.stalls import Patience

from .rounds_world import (
    POLICY,
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
