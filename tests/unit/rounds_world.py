"""Agents that report, a clock that ticks: what the tests of coordinator/rounds.py are made of."""

from __future__ import annotations

from pretrain_llm.contract.protocol import (
    RUNNING,
    WAITING,
    AgentReport,
)
from pretrain_llm.coordinator import rounds
from pretrain_llm.coordinator.rounds import Policy, State

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
