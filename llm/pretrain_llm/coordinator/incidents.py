"""Builds the incident of each broken round: first cause and the four durations. Pure.

    fault      broken         next round       workers          first step
      |--detect--|--reschedule--|----restore----|---first step---|

A worker that dies takes its peers' collectives with it: their errors are echoes. The first cause
is the earliest failure that is not an echo. Where every one is, those that gave up waiting come
before those that lost a connection, because a process ended at the other end of it. In which order
failures are told says nothing: a process that aborts is often seen dead after its peers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from ..contract import exit_codes, status, symptoms
from ..contract.protocol import RecentIncident
from ..contract.reports import PEER, FaultReport, RestoredReport, StackReport, StepReport
from ..contract.status import Incident, Rollback
from . import suspects
from .rounds import Agent, Break, Round

KEPT = 20  # incidents in the status document; the operator remembers the earlier ones
# Agents keep for the next coordinator what the operator may not have read yet: it looks every few
# seconds. Every report carries them, so they are few, and soon none.
CARRIED = 2
CARRIED_SECONDS = 30.0

# How gloo, NCCL and torch's store say that a peer is gone. The kinds are torch's exceptions.
_ECHO_KINDS = ("DistBackendError", "DistNetworkError", "DistStoreError")
_ECHO_MESSAGE = re.compile(
    r"connection (closed|reset|refused)|closed by peer|broken pipe|socket (timeout|closed)"
    r"|gloo|nccl|tcpstore|remote process exited",
    re.IGNORECASE,
)
_ASKED = (status.STOP_REQUESTED, status.MORE_NODES)


@dataclass(frozen=True)
class Recovery:
    """An incident, and the times that its durations are measured from."""

    incident: Incident
    broken_at: float
    next_round: int | None = None
    formed_at: float | None = None
    restored_at: float | None = None
    stacks: tuple[tuple[StackReport, Agent], ...] = ()  # of a stalled round, until it is over
    over: bool = False  # stepping again, or cut short by the next incident


def distance(fault: FaultReport) -> int:
    """How far a failed worker is from the first cause, by its own words; 0: it is no echo.

    NCCL's watchdog ends its process with SIGABRT: then only stderr says that a peer was waited for.
    """
    if fault.out_of_memory or fault.exit_code in exit_codes.FINAL:
        return 0
    if fault.symptom in symptoms.ECHOES:
        return 1 + symptoms.ECHOES.index(fault.symptom)
    if fault.symptom is not None or fault.signal is not None:
        return 0
    text = fault.error_message or ""
    is_echo = fault.error_kind in _ECHO_KINDS or _ECHO_MESSAGE.search(text) is not None
    return len(symptoms.ECHOES) if is_echo else 0


def is_echo(fault: FaultReport) -> bool:
    """Whether a worker failed only because of a peer."""
    return distance(fault) > 0


def opened(
    recoveries: tuple[Recovery, ...], ended: Round, agent: Agent | None, last_step: int
) -> tuple[Recovery, ...]:
    """With a new incident for the round that was just broken; the one before is over."""
    reason = ended.broken
    assert reason is not None
    incident = Incident(
        round=ended.number,
        time=reason.time,
        evidence=reason.evidence,
        last_step=last_step,
        nodes=len(ended.members),
    )
    recovery = _blaming(Recovery(incident, reason.time), reason, agent)
    earlier = tuple(_ended(r) for r in recoveries)
    return (*earlier, recovery)[-KEPT:]


def with_fault(
    recoveries: tuple[Recovery, ...], fault: FaultReport, agent: Agent
) -> tuple[Recovery, ...]:
    """With one more failed worker of the broken round: the new first cause, or an echo of it."""
    return tuple(
        _faulted(r, fault, agent) if r.incident.round == fault.round else r for r in recoveries
    )


def with_stack(
    recoveries: tuple[Recovery, ...], stack: StackReport, agent: Agent
) -> tuple[Recovery, ...]:
    """With one more worker of the stalled round; one that comes too late tells nothing new."""
    return tuple(
        replace(r, stacks=(*r.stacks, (stack, agent)))
        if r.incident.round == stack.round and not r.over
        else r
        for r in recoveries
    )


def with_rollback(
    recoveries: tuple[Recovery, ...], round_number: int, rollback: Rollback
) -> tuple[Recovery, ...]:
    return tuple(
        replace(r, incident=replace(r.incident, rollback=rollback))
        if r.incident.round == round_number
        else r
        for r in recoveries
    )


def rolled_back_to(recoveries: tuple[Recovery, ...], round_number: int) -> int | None:
    """The first step of the round that is undone; None: none is."""
    found = (r.incident.rollback for r in recoveries if r.incident.round == round_number)
    return next((rollback.first for rollback in found if rollback), None)


def shown(recovery: Recovery) -> Incident:
    """The incident, with the suspects that the stacks so far name: the first one's node is its."""
    if not recovery.stacks:
        return recovery.incident
    agents = {stack.rank: agent for stack, agent in recovery.stacks}
    paths = [stack.path for stack, _ in recovery.stacks if stack.path]
    incident = replace(
        recovery.incident,
        suspects=suspects.suspicions([stack for stack, _ in recovery.stacks]),
        stacks_path=str(PurePosixPath(paths[0]).parent) if paths else None,
    )
    if not incident.suspects:
        return incident
    agent = agents[incident.suspects[0].rank]
    return replace(incident, agent=agent.name, slot=agent.slot, node=agent.node)


def carried(recoveries: tuple[Recovery, ...], now: float) -> tuple[RecentIncident, ...]:
    """What the next coordinator must know of, should this one die now."""
    return tuple(
        RecentIncident(shown(r), r.broken_at, r.next_round, r.formed_at, r.restored_at, r.over)
        for r in recoveries[-CARRIED:]
        if not r.over or now < r.broken_at + CARRIED_SECONDS
    )


def reminded(
    recoveries: tuple[Recovery, ...], carried: tuple[RecentIncident, ...]
) -> tuple[Recovery, ...]:
    """With what only an earlier coordinator knew. Of two agents that heard of an incident, the one
    that heard more counts; a later incident has ended it.
    """
    known = {recovery.incident.round: recovery for recovery in recoveries}
    news = [told for told in carried if _is_news(told, known.get(told.incident.round))]
    if not news:
        return recoveries
    known |= {told.incident.round: _resumed(told) for told in news}
    *earlier, last = (known[number] for number in sorted(known))
    return (*map(_ended, earlier), last)[-KEPT:]


def _is_news(told: RecentIncident, mine: Recovery | None) -> bool:
    return mine is None or _phase(told) > _phase(mine)


def _resumed(told: RecentIncident) -> Recovery:
    return Recovery(
        told.incident,
        told.broken_at,
        told.next_round,
        told.formed_at,
        told.restored_at,
        over=told.over,
    )


def _phase(told: Recovery | RecentIncident) -> tuple[bool, ...]:
    """How far a recovery has come, and whether its cause is known; compares."""
    first = told.incident.first_fault
    has_cause = first is not None and not is_echo(first)
    return told.over, told.restored_at is not None, told.next_round is not None, has_cause


def _ended(recovery: Recovery) -> Recovery:
    return replace(recovery, incident=shown(recovery), stacks=(), over=True)


def with_lost_agent(
    recoveries: tuple[Recovery, ...], reason: Break, agent: Agent | None
) -> tuple[Recovery, ...]:
    """A member fell silent or started anew after its peers' echoes had broken the round: it is the
    cause. Of one that this coordinator never heard of, the echo is the first that is known.
    """
    if not recoveries:
        return recoveries
    last = recoveries[-1]
    first = last.incident.first_fault
    if last.incident.evidence != status.WORKER_EXIT or (first and not is_echo(first)):
        return recoveries
    echoes = last.incident.echoes + (first is not None)
    incident = replace(last.incident, first_fault=None, echoes=echoes, evidence=reason.evidence)
    if agent is None:
        reason = replace(reason, since=last.incident.time)
    return (*recoveries[:-1], _blaming(replace(last, incident=incident), reason, agent))


def with_round(recoveries: tuple[Recovery, ...], formed: Round) -> tuple[Recovery, ...]:
    def ongoing(recovery: Recovery) -> Recovery:
        seconds = _seconds(recovery.broken_at, formed.formed_at)
        incident = replace(
            recovery.incident, reschedule_seconds=seconds, next_nodes=len(formed.members)
        )
        return replace(
            recovery,
            incident=incident,
            next_round=formed.number,
            formed_at=formed.formed_at,
            restored_at=None,
        )

    # One that waits for the steps of a round before `formed` has missed them: its coordinator died.
    return tuple(r if r.over else ongoing(r) for r in recoveries)


def with_restored(
    recoveries: tuple[Recovery, ...], round_number: int, restored: RestoredReport
) -> tuple[Recovery, ...]:
    """A worker of the next round is ready; the last of them counts."""

    def ready(recovery: Recovery) -> Recovery:
        assert recovery.formed_at is not None
        at = max(restored.time, recovery.restored_at or 0.0)
        incident = replace(
            recovery.incident,
            restore_seconds=_seconds(recovery.formed_at, at),
            resumed_step=restored.step,
            restored_from=_farthest(recovery.incident.restored_from, restored.source),
        )
        return replace(recovery, incident=incident, restored_at=at)

    return tuple(ready(r) if _leads_to(r, round_number) else r for r in recoveries)


def _farthest(known: str | None, told: str) -> str:
    """One rank fetched its state from a peer, the others had theirs: the round's is the peer's."""
    return PEER if known == PEER else told


def with_step(
    recoveries: tuple[Recovery, ...], round_number: int, step: StepReport
) -> tuple[Recovery, ...]:
    """The first step of the next round ends a recovery; a late one tells how far the last came."""

    def stepping(recovery: Recovery) -> Recovery:
        incident = recovery.incident
        if incident.round == round_number:
            reached = max(incident.last_step, step.step)
            return replace(recovery, incident=replace(incident, last_step=reached))
        if not _leads_to(recovery, round_number):
            return recovery
        assert recovery.formed_at is not None
        since = recovery.restored_at or recovery.formed_at
        incident = replace(incident, first_step_seconds=_seconds(since, step.time))
        return _ended(replace(recovery, incident=incident))

    return tuple(stepping(recovery) for recovery in recoveries)


def _leads_to(recovery: Recovery, round_number: int) -> bool:
    return not recovery.over and recovery.next_round == round_number


def _blaming(recovery: Recovery, reason: Break, agent: Agent | None) -> Recovery:
    """Agents that fell silent did so when they were last seen; a stall began with the last step."""
    time = recovery.broken_at if reason.since is None else reason.since
    if reason.evidence == status.LEASE_EXPIRED and agent is not None:
        time = min(agent.seen_at, recovery.broken_at)
    incident = replace(
        recovery.incident,
        agent=reason.agent,
        slot=agent.slot if agent else None,
        node=agent.node if agent else None,
        time=time,
        detect_seconds=_seconds(time, recovery.broken_at),
    )
    return replace(recovery, incident=incident)


def _faulted(recovery: Recovery, fault: FaultReport, agent: Agent) -> Recovery:
    incident, first = recovery.incident, recovery.incident.first_fault
    if not _is_first(incident, fault):
        return replace(recovery, incident=replace(incident, echoes=incident.echoes + 1))
    time = min(fault.time, recovery.broken_at)
    incident = replace(
        incident,
        evidence=status.WORKER_EXIT,
        first_fault=fault,
        echoes=incident.echoes + (first is not None),
        agent=agent.name,
        slot=agent.slot,
        node=agent.node,
        time=time,
        detect_seconds=_seconds(time, recovery.broken_at),
    )
    return replace(recovery, incident=incident)


def _is_first(incident: Incident, fault: FaultReport) -> bool:
    """Whether `fault` explains the incident better than what is known of it.

    A round that saved to let somebody go may have been broken by an echo of it.
    """
    if incident.evidence in _ASKED:
        return not is_echo(fault)
    if incident.evidence != status.WORKER_EXIT:
        return False
    first = incident.first_fault
    return first is None or (distance(fault), fault.time) < (distance(first), first.time)


def _seconds(start: float, end: float) -> float:
    """Never negative: the two times may come from two machines' clocks."""
    return round(max(0.0, end - start), 3)
