"""Decides rounds: who is in one, when it is broken, who is in the next. Pure: no clock, no I/O.

                                           a member's lease ends, it restarts, its worker fails,
             enough agents wait            or no step comes
   (none) ----------------------> running ------------------------------------------------> broken
                                   |   ^                                                      |
          all members finished     |   |  live members wait again, gaps filled, back-off over |
   finished <----------------------+   +------------------------------------------------------+

A member that was asked to leave does not break the round at once: its workers and everybody
else's are saving together, and a broken round kills workers. The round drains first. So it does
where a segment of the curriculum ends: all workers save and leave, and the next round goes on.

Where agents are missing for too long, the next round is smaller, if the run allows that. A round
that lacks agents drains once they are back, so that the next one is larger and no step is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..contract import status
from ..contract.protocol import (
    FINISHED,
    LEASE_SECONDS,
    LEAVING,
    LEFT,
    PREPARING,
    RUNNING,
    WAITING,
    AgentReport,
)
from . import stalls
from .stalls import Pace, Patience

MAX_BACK_OFF_SECONDS = 30.0
STALL_SECONDS = 1.0  # a clock that jumps further than this says nothing about the agents
SEGMENT_ENDED = "SegmentEnded"  # Break.evidence; no incident
FORGET_SECONDS = 60.0  # after which an agent that is gone is no longer shown


@dataclass(frozen=True)
class Policy:
    nodes: int  # agents in a round
    spares: int
    lease_seconds: float = LEASE_SECONDS
    hang_up_seconds: float = 1.0  # the lease of an agent whose connection ended: its process died
    settle_seconds: float = 10.0  # a new coordinator listens for a running round before naming one
    adoption_seconds: float = 30.0  # members of an adopted round may take this long to report
    save_seconds: float = 60.0  # a draining round is broken after this
    patience: Patience = field(default_factory=Patience)
    boundaries: tuple[int, ...] = ()  # steps after which all workers save and leave
    fewer_nodes: tuple[int, ...] = ()  # legal sizes of a smaller round, largest first
    shrink_after_seconds: float = 120.0  # that a round waits for more agents

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of a legal round, largest first."""
        return (self.nodes, *self.fewer_nodes)


@dataclass(frozen=True)
class Agent:
    name: str
    slot: int
    node: str
    incarnation: str
    state: str
    since: float  # when it came into that state
    seen_at: float
    round: int  # the newest it took part in
    saved: bool  # its workers ended that round with exit_codes.SAVED
    hung_up_at: float | None = None  # its connection ended, and no report has come since


@dataclass(frozen=True)
class Break:
    """Why and when a round was broken."""

    time: float
    evidence: str  # contract.status.EVIDENCE, or SEGMENT_ENDED
    agent: str | None = None
    since: float | None = None  # when the fault began, where that is known


@dataclass(frozen=True)
class Round:
    number: int
    members: tuple[str, ...]  # by rank
    formed_at: float
    known_since: float  # formed or adopted by this coordinator
    highest_step_before: int
    pace: Pace
    adopted: bool = False
    draining: Break | None = None  # since when, and why: the first member that let go
    broken: Break | None = None

    @property
    def makes_room(self) -> bool:
        """Whether its workers must save and end, so that a larger round can follow."""
        return self.draining is not None and self.draining.evidence == status.MORE_NODES


@dataclass(frozen=True)
class State:
    policy: Policy
    started_at: float
    ticked_at: float
    agents: Mapping[str, Agent] = field(default_factory=dict)  # never changed in place
    round: Round | None = None
    ended: Round | None = None  # the newest that was broken by an incident
    highest_round: int = 0  # numbers are never used twice, whichever coordinator gave them
    highest_step: int = 0
    barren_rounds: int = 0  # in a row, that ended without a step never reached before
    finished: bool = False
    waiting_for: str | None = None


def initial(policy: Policy, now: float) -> State:
    return State(policy, started_at=now, ticked_at=now)


# What is told


def reported(state: State, report: AgentReport, now: float) -> State:
    """The state after an agent's report: its lease renewed, its round adopted if it is unknown."""
    before = state.agents.get(report.agent)
    agent = Agent(
        name=report.agent,
        slot=report.slot,
        node=report.node,
        incarnation=report.incarnation,
        state=report.state,
        since=before.since if before and before.state == report.state else now,
        seen_at=now,
        round=report.round,
        saved=report.saved,
    )
    state = replace(
        state,
        agents={**state.agents, agent.name: agent},
        highest_round=max(state.highest_round, report.highest_round, report.round),
    )
    state = _adopted(state, report, now)
    if before and before.incarnation != agent.incarnation and _is_member(state, agent.name):
        return broken(state, Break(now, status.AGENT_RESTARTED, agent.name))
    return state


def hung_up(state: State, name: str, now: float) -> State:
    """The state after an agent's connection ended: a live agent comes back with a new one."""
    agent = state.agents.get(name)
    if agent is None:
        return state
    return replace(state, agents={**state.agents, name: replace(agent, hung_up_at=now)})


def faulted(state: State, agent: str, round_number: int, now: float, *, is_echo: bool) -> State:
    """The state after a worker of `round_number` failed.

    A peer that was asked to stop before it could save leaves echoes behind, not faults.
    """
    if state.round is None or state.round.number != round_number:
        return state
    if state.round.draining and is_echo:
        return broken(state, replace(state.round.draining, time=now))
    return broken(state, Break(now, status.WORKER_EXIT, agent))


def stepped(state: State, step: int) -> State:
    return replace(state, highest_step=max(state.highest_step, step))


def paced(state: State, round_number: int, pace: Callable[[Pace], Pace]) -> State:
    """The state after the workers of `round_number` moved."""
    if state.round is None or state.round.number != round_number:
        return state
    return replace(state, round=replace(state.round, pace=pace(state.round.pace)))


def broken(state: State, reason: Break) -> State:
    """The first reason stays; a finished run does not break."""
    if state.round is None or state.round.broken or state.finished:
        return state
    ended = replace(state.round, broken=reason)
    if reason.evidence == SEGMENT_ENDED:
        return replace(state, round=ended)
    return replace(state, round=ended, ended=ended)


def _adopted(state: State, report: AgentReport, now: float) -> State:
    """Takes over a round that an earlier coordinator named, or died before it heard of its end."""
    known = state.round.number if state.round else 0
    if report.round <= known or report.agent not in report.members:
        return state
    if report.state not in (RUNNING, FINISHED, LEAVING) and not _brings_its_end(report):
        return state
    formed_at = now if report.formed_at is None else report.formed_at
    adopted = Round(
        number=report.round,
        members=report.members,
        formed_at=formed_at,
        known_since=now,
        highest_step_before=report.carried.highest_step,
        pace=Pace(now),
        adopted=True,
    )
    return replace(state, round=adopted)


def _brings_its_end(report: AgentReport) -> bool:
    """Whether no coordinator has answered the fault that ended an agent's newest round."""
    told = (event.fault for event in report.events)
    is_newest = report.highest_round <= report.round
    return is_newest and any(fault and fault.round == report.round for fault in told)


# What time brings


def ticked(state: State, now: float) -> State:
    """The state at `now`: rounds finished, drained, broken and named as far as they can be."""
    state = _without_stall(state, now)
    state = _finished(state)
    state = _draining(state, now)
    reason = break_reason(state, now)
    state = broken(state, reason) if reason else state
    return _without_forgotten(_formed(state, now), now)


def _without_stall(state: State, now: float) -> State:
    """Leases and patience do not run while this process, or its clock, stood still or jumped."""
    gap = now - state.ticked_at
    state = replace(state, ticked_at=now)
    if gap <= STALL_SECONDS:
        return state
    agents = {name: _extended(agent, gap, now) for name, agent in state.agents.items()}
    state = replace(state, agents=agents)
    return paced(
        state,
        state.round.number if state.round else 0,
        lambda pace: replace(pace, moved_at=min(now, pace.moved_at + gap)),
    )


def _extended(agent: Agent, seconds: float, now: float) -> Agent:
    hung_up_at = agent.hung_up_at
    return replace(
        agent,
        seen_at=min(now, agent.seen_at + seconds),
        hung_up_at=None if hung_up_at is None else min(now, hung_up_at + seconds),
    )


def _finished(state: State) -> State:
    if state.round is None or state.round.broken:
        return state
    members = [state.agents.get(name) for name in state.round.members]
    if all(member is not None and member.state == FINISHED for member in members):
        return replace(state, finished=True)
    return state


def _draining(state: State, now: float) -> State:
    if state.round is None or state.round.broken or state.round.draining:
        return state
    for agent in _known_members(state):
        if _has_let_go(agent, state.round):
            first = Break(now, status.STOP_REQUESTED, agent.name)
            return replace(state, round=replace(state.round, draining=first))
    if _may_grow(state, now):
        return replace(state, round=replace(state.round, draining=Break(now, status.MORE_NODES)))
    return state


def _may_grow(state: State, now: float) -> bool:
    """Only a round that came further than any before it, and that has steps left. Where some
    agents are still missing, not often: each time costs a save and a start.
    """
    current, policy = state.round, state.policy
    assert current is not None
    pace, size = current.pace, len(current.members)
    if pace.is_last or pace.step is None or pace.step <= current.highest_step_before:
        return False
    joining = sum(a.state == WAITING and is_live(a, policy, now) for a in state.agents.values())
    larger = _largest(policy, size + joining)
    if larger <= size:
        return False
    return larger == policy.nodes or now >= current.formed_at + policy.shrink_after_seconds


def _largest(policy: Policy, agents: int) -> int:
    """The size of the largest legal round of so many agents; 0: there is none."""
    return next((size for size in policy.sizes if size <= agents), 0)


def break_reason(state: State, now: float) -> Break | None:
    """Why the running round cannot go on; None: it can."""
    if state.round is None or state.round.broken or state.finished:
        return None
    for name in state.round.members:
        if evidence := _member_evidence(state, name, now):
            return Break(now, evidence, name)
    if draining := state.round.draining:
        drained = replace(draining, time=now, evidence=_let_go_evidence(state, draining))
        return drained if _is_drained(state, draining, now) else None
    pace = state.round.pace
    if stalls.is_stalled(state.policy.patience, pace, now):
        return Break(now, status.STALLED, since=pace.moved_at)
    return None


def _member_evidence(state: State, name: str, now: float) -> str | None:
    assert state.round is not None
    agent = state.agents.get(name)
    if lease_ended(state, name, now):
        return status.LEASE_EXPIRED
    if agent is None:
        return None
    if agent.state == PREPARING:
        return status.AGENT_RESTARTED
    rejoined = agent.state == WAITING and agent.round == state.round.number
    return status.WORKER_EXIT if rejoined and not agent.saved else None


def lease_ended(state: State, name: str, now: float) -> bool:
    """Whether a member went silent without having said that it would."""
    assert state.round is not None
    agent, policy = state.agents.get(name), state.policy
    if agent is None:
        return now > state.round.known_since + policy.adoption_seconds
    return agent.state not in (FINISHED, LEFT) and not is_live(agent, policy, now)


def _is_drained(state: State, draining: Break, now: float) -> bool:
    policy = state.policy
    is_urgent = draining.evidence == status.STOP_REQUESTED
    limit_seconds = policy.save_seconds if is_urgent else policy.patience.quiet_seconds
    if now > draining.time + limit_seconds:
        return True
    return not any(agent.state in (RUNNING, LEAVING) for agent in _known_members(state))


def _let_go_evidence(state: State, draining: Break) -> str:
    """Nobody was asked to leave where all workers left after the last step of a segment."""
    assert state.round is not None
    asked = any(agent.state in (LEAVING, LEFT) for agent in _known_members(state))
    at_boundary = state.round.pace.step in state.policy.boundaries
    return SEGMENT_ENDED if at_boundary and not asked else draining.evidence


def _has_let_go(agent: Agent, current: Round) -> bool:
    return agent.state in (LEAVING, LEFT) or (agent.saved and agent.round == current.number)


# The next round


def _formed(state: State, now: float) -> State:
    if state.finished or (state.round and not state.round.broken):
        return replace(state, waiting_for=None)
    members = next_members(state, now)
    if isinstance(members, str):
        return replace(state, waiting_for=members)
    number = state.highest_round + 1
    formed = Round(number, members, now, now, state.highest_step, Pace(now))
    return replace(
        state,
        round=formed,
        highest_round=number,
        barren_rounds=_barren_rounds(state),
        waiting_for=None,
    )


def next_members(state: State, now: float) -> tuple[str, ...] | str:
    """The agents of the next round by rank, or what it waits for, in words."""
    last = state.round.members if state.round else ()
    live = {a.name: a for a in state.agents.values() if is_live(a, state.policy, now)}
    if _has_unheard(state) and not is_settled(state, now):
        return "agents of a round that an earlier coordinator may have named"
    stopping = [n for n in last if n in live and live[n].state in (RUNNING, FINISHED, LEAVING)]
    if stopping:
        return f"{', '.join(stopping)} to stop the workers of the broken round"
    waiting = [agent for agent in live.values() if agent.state == WAITING]
    size = next_size(state, waiting, now)
    if not size:
        preparing = sum(agent.state == PREPARING for agent in live.values())
        return _missing(state.policy, len(waiting), preparing)
    if now < _backed_off_until(state):
        return f"the back-off after {_barren_rounds(state)} rounds without a step of progress"
    return ranked(last, waiting, size)


def next_size(state: State, waiting: Collection[Agent], now: float) -> int:
    """How many agents the next round has; 0: it waits for more.

    No fewer than the last one had, until none has come for a while: that one may have shrunk.
    """
    policy = state.policy
    size = _largest(policy, len(waiting))
    wanted = len(state.round.members) if state.round else policy.nodes
    if size >= wanted:
        return size
    broken_at = state.round.broken.time if state.round and state.round.broken else state.started_at
    newest = max((broken_at, *(agent.since for agent in waiting)))
    return size if now >= newest + policy.shrink_after_seconds else 0


def _missing(policy: Policy, waiting: int, preparing: int) -> str:
    words = f"{policy.nodes} agents: {waiting} wait, {preparing} prepare"
    if not (fewer := _largest(policy, waiting)):
        return words
    return f"{words}; {policy.shrink_after_seconds:g} s after the last has come, {fewer} go on"


def ranked(last: tuple[str, ...], waiting: Iterable[Agent], nodes: int) -> tuple[str, ...]:
    """Members keep their ranks; gaps are filled by slot. In a round of another size they keep
    their order, and the others follow. `waiting` has at least `nodes` agents.
    """
    by_slot = [agent.name for agent in sorted(waiting, key=lambda a: (a.slot, a.name))]
    others = [name for name in by_slot if name not in last]
    if len(last) != nodes:
        return tuple([*(name for name in last if name in by_slot), *others][:nodes])
    joining = iter(others)
    return tuple(name if name in by_slot else next(joining) for name in last)


def is_live(agent: Agent, policy: Policy, now: float) -> bool:
    ends_at = agent.seen_at + policy.lease_seconds
    if agent.hung_up_at is not None:
        ends_at = min(ends_at, agent.hung_up_at + policy.hang_up_seconds)
    return agent.state != LEFT and now <= ends_at


def back_off_seconds(barren_rounds: int) -> float:
    """0, 1, 2, 4, … seconds, at most MAX_BACK_OFF_SECONDS."""
    return min(MAX_BACK_OFF_SECONDS, 2.0 ** (barren_rounds - 1)) if barren_rounds else 0.0


def _backed_off_until(state: State) -> float:
    if state.round is None or state.round.broken is None:
        return 0.0
    return state.round.broken.time + back_off_seconds(_barren_rounds(state))


def _barren_rounds(state: State) -> int:
    """With the broken round counted. Read late: its last steps may be reported after its end.

    Of an adopted round nobody knows where it began: it counts as one that came further.
    """
    if state.round is None or state.round.broken is None:
        return 0
    if state.round.broken.evidence in (status.STOP_REQUESTED, status.MORE_NODES, SEGMENT_ENDED):
        return state.barren_rounds
    progressed = state.round.adopted or state.highest_step > state.round.highest_step_before
    return 0 if progressed else state.barren_rounds + 1


def _has_unheard(state: State) -> bool:
    """Whether agents may have workers that this coordinator does not know of."""
    current = state.round
    return current is None or (current.adopted and not state.agents.keys() >= set(current.members))


def is_settled(state: State, now: float) -> bool:
    """Whether every agent that lives has had the time to find a new coordinator."""
    live = sum(is_live(agent, state.policy, now) for agent in state.agents.values())
    everybody = live >= state.policy.nodes + state.policy.spares
    return everybody or now >= state.started_at + state.policy.settle_seconds


def _is_member(state: State, name: str) -> bool:
    return state.round is not None and name in state.round.members


def _known_members(state: State) -> list[Agent]:
    assert state.round is not None
    return [state.agents[name] for name in state.round.members if name in state.agents]


def _without_forgotten(state: State, now: float) -> State:
    kept = {
        name: agent
        for name, agent in state.agents.items()
        if _is_member(state, name) or now <= agent.seen_at + FORGET_SECONDS
    }
    return state if len(kept) == len(state.agents) else replace(state, agents=kept)


def view_key(state: State) -> tuple[object, ...]:
    """What agents must hear of at once when it changes."""
    current = state.round
    if current is None:
        return (0, True, False, state.finished)
    return (current.number, current.broken is not None, current.makes_room, state.finished)
