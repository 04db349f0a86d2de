"""All that a coordinator knows of its run, and how each report and each tick changes it. Pure.

Every event of an agent is counted once: agents number their events and send them again until they
are acknowledged. A new coordinator starts with what the agents carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ..contract import symptoms
from ..contract.config import CheckpointConfig
from ..contract.data_steps import SkippedData
from ..contract.memory import Generation, MemoryStanding, Restore
from ..contract.protocol import AgentEvent, AgentReport, RoundView
from ..contract.reports import MemorySavedReport, QuarantinedReport, StepReport, WorkerReport
from ..contract.status import (
    AGENT_RESTARTED,
    LEASE_EXPIRED,
    LOSS_SPIKE,
    MORE_NODES,
    STALLED,
    STOP_REQUESTED,
    AgentStatus,
    MemoryCheckpoint,
    StatusDocument,
    Straggler,
)
from . import (
    cadence,
    incidents,
    lost,
    memory,
    progress,
    rollbacks,
    rounds,
    saved,
    stalls,
    stragglers,
)
from .cadence import Rhythm
from .incidents import Recovery
from .progress import Trained
from .rollbacks import LossPolicy
from .rounds import Break, Policy, State
from .saved import Saved
from .stragglers import OwnTimes, StragglerPolicy

KEPT_QUARANTINED = 20
UNHURRIED = cadence.initial(CheckpointConfig(keep_latest=2, interval=1000), devices=1)


@dataclass(frozen=True)
class Identity:
    run: str
    attempt: int
    total_steps: int
    coordinator: str  # differs for every process


@dataclass(frozen=True)
class Ledger:
    identity: Identity
    rounds: State
    loss_policy: LossPolicy = field(default_factory=LossPolicy)
    straggler_policy: StragglerPolicy = field(default_factory=StragglerPolicy)
    own_times: OwnTimes = field(default_factory=OwnTimes)
    recoveries: tuple[Recovery, ...] = ()
    trained: Trained = field(default_factory=Trained)
    rhythm: Rhythm = UNHURRIED
    saved: Saved = ()
    skipped: SkippedData = field(default_factory=SkippedData)
    quarantined: tuple[QuarantinedReport, ...] = ()
    acknowledged: Mapping[str, int] = field(default_factory=dict)  # by incarnation
    memory: Mapping[str, MemoryStanding] = field(default_factory=dict)  # by agent
    memory_saved: MemorySavedReport | None = None  # the newest of rank 0
    restore: Restore | None = None  # of the round that this coordinator named last
    safe: Generation | None = None
    revision: int = 0


def opened(
    identity: Identity,
    policy: Policy,
    now: float,
    rhythm: Rhythm = UNHURRIED,
    loss_policy: LossPolicy | None = None,
    straggler_policy: StragglerPolicy | None = None,
) -> Ledger:
    return Ledger(
        identity,
        rounds.initial(policy, now),
        loss_policy or LossPolicy(),
        straggler_policy or StragglerPolicy(),
        rhythm=rhythm,
    )


def told(ledger: Ledger, report: AgentReport, now: float) -> Ledger:
    """The ledger after an agent's report, its events by this machine's clock."""
    events = _new_events(ledger, report)
    expected = max(report.first_event + len(report.events), _acknowledged(ledger, report))
    after = replace(
        ledger,
        acknowledged={**ledger.acknowledged, report.incarnation: expected},
        trained=progress.reminded(ledger.trained, report.carried),
        recoveries=incidents.reminded(ledger.recoveries, report.carried.incidents),
        rhythm=cadence.reminded(ledger.rhythm, report.carried.cadence),
        saved=_reminded(ledger, report),
        skipped=ledger.skipped.newer(report.carried.skipped),
        rounds=rounds.stepped(
            rounds.reported(ledger.rounds, report, now), report.carried.highest_step
        ),
    )
    clock_offset_seconds = now - report.time
    for event in events:
        after = _with_event(after, report.agent, _shifted(event, clock_offset_seconds), now)
    after = _with_memory(after, report)
    if lost.died_unsaid(ledger.rounds, report):
        reason = Break(now, AGENT_RESTARTED, report.agent)
        agent = after.rounds.agents[report.agent]
        after = replace(
            after, recoveries=incidents.with_lost_agent(after.recoveries, reason, agent)
        )
    return _settled(ledger, replace(after, rounds=rounds.ticked(after.rounds, now)), now)


def _reminded(ledger: Ledger, report: AgentReport) -> Saved:
    """An agent's first report may know of a checkpoint that was saved before this coordinator's
    time; what a later one carries comes from this coordinator, and may be older than its own word.
    """
    if report.incarnation in ledger.acknowledged:
        return ledger.saved
    return saved.with_saved(ledger.saved, report.carried.latest_checkpoint, ledger.quarantined)


def ticked(ledger: Ledger, now: float) -> Ledger:
    return _settled(ledger, replace(ledger, rounds=rounds.ticked(ledger.rounds, now)), now)


def hung_up(ledger: Ledger, agent: str, now: float) -> Ledger:
    return replace(ledger, rounds=rounds.hung_up(ledger.rounds, agent, now))


def names_a_round(before: Ledger, after: Ledger) -> bool:
    """Whether `after` has a new round of this coordinator's own."""
    old, new = before.rounds.round, after.rounds.round
    return new is not None and not new.adopted and (old is None or old.number != new.number)


def view(ledger: Ledger, incarnation: str | None = None) -> RoundView:
    current = ledger.rounds.round
    return RoundView(
        coordinator=ledger.identity.coordinator,
        revision=ledger.revision,
        round=current.number if current else 0,
        members=current.members if current else (),
        formed_at=current.formed_at if current else None,
        broken=current is None or current.broken is not None,
        stalled=bool(current and current.broken and current.broken.evidence == STALLED),
        draining=current is not None and current.makes_room,
        finished=ledger.rounds.finished,
        waiting_for=ledger.rounds.waiting_for,
        acknowledged=ledger.acknowledged.get(incarnation, 0) if incarnation else 0,
        carried=replace(
            progress.carried(ledger.trained, saved.latest(ledger.saved), ledger.skipped),
            cadence=ledger.rhythm.cadence,
            incidents=incidents.carried(ledger.recoveries, ledger.rounds.ticked_at),
        ),
        memory=memory.view(
            ledger.memory, current.members if current else (), ledger.restore, ledger.safe
        ),
    )


def status(ledger: Ledger, now: float) -> StatusDocument:
    current = ledger.rounds.round
    return StatusDocument(
        run=ledger.identity.run,
        attempt=ledger.identity.attempt,
        time=now,
        started_at=ledger.rounds.started_at,
        round=current.number if current else 0,
        round_formed_at=current.formed_at if current else None,
        broken=current is None or current.broken is not None,
        waiting_for=ledger.rounds.waiting_for,
        wanted_nodes=ledger.rounds.policy.nodes,
        agents=_agents(ledger.rounds),
        progress=progress.progress(ledger.trained, ledger.identity.total_steps),
        first_step=progress.first_step(ledger.trained),
        replay=ledger.trained.replay,
        latest_checkpoint=saved.latest(ledger.saved),
        memory_checkpoint=_memory_checkpoint(ledger),
        stall_seconds=ledger.trained.stall_seconds,
        cadence=ledger.rhythm.cadence,
        quarantined=ledger.quarantined,
        skipped=ledger.skipped,
        stragglers=_stragglers(ledger),
        incidents=tuple(incidents.shown(recovery) for recovery in ledger.recoveries),
        finished=ledger.rounds.finished,
    )


def _agents(state: State) -> tuple[AgentStatus, ...]:
    members = state.round.members if state.round else ()
    return tuple(
        AgentStatus(
            name=agent.name,
            slot=agent.slot,
            node=agent.node,
            state=agent.state,
            last_seen=agent.seen_at,
            rank=members.index(agent.name) if agent.name in members else None,
        )
        for agent in sorted(state.agents.values(), key=lambda a: (a.slot, a.name))
    )


def _memory_checkpoint(ledger: Ledger) -> MemoryCheckpoint | None:
    if not ledger.memory:
        return None
    return MemoryCheckpoint(
        step=ledger.safe.step if ledger.safe else 0,
        bytes=memory.size_bytes(ledger.memory, ledger.safe) if ledger.safe else 0,
        stall_seconds=ledger.memory_saved.stall_seconds if ledger.memory_saved else 0.0,
        problem=memory.problem(ledger.memory),
    )


def _with_memory(ledger: Ledger, report: AgentReport) -> Ledger:
    """With what the agent holds; what agents hold that are forgotten is forgotten too."""
    current = ledger.rounds.round
    if report.memory is None or ledger.memory.get(report.agent) == report.memory:
        return ledger
    known = {**ledger.memory, report.agent: report.memory}
    kept = {name: held for name, held in known.items() if name in ledger.rounds.agents}
    safe = memory.safe(kept, len(current.members)) if current else None
    return replace(ledger, memory=kept, safe=safe)


def _restore(ledger: Ledger, members: tuple[str, ...], now: float) -> Restore | None:
    """What a round that was just named starts from."""
    state, newest = ledger.rounds, saved.latest(ledger.saved)
    live = {
        name: standing
        for name, standing in ledger.memory.items()
        if name in state.agents and rounds.is_live(state.agents[name], state.policy, now)
    }
    saved_step = newest.step if newest else 0
    return memory.restore(live, members, saved_step, is_barren=state.barren_rounds > 0)


def _stragglers(ledger: Ledger) -> tuple[Straggler, ...]:
    current = ledger.rounds.round
    if current is None or current.broken or current.number != ledger.own_times.round:
        return ()
    nodes = {agent.name: agent.node for agent in ledger.rounds.agents.values()}
    return stragglers.stragglers(ledger.own_times, ledger.straggler_policy, nodes)


def _new_events(ledger: Ledger, report: AgentReport) -> Iterable[AgentEvent]:
    already = max(0, _acknowledged(ledger, report) - report.first_event)
    return report.events[already:]


def _acknowledged(ledger: Ledger, report: AgentReport) -> int:
    return ledger.acknowledged.get(report.incarnation, 0)


def _with_event(ledger: Ledger, agent_name: str, event: AgentEvent, now: float) -> Ledger:
    if event.worker:
        return _with_worker_report(ledger, agent_name, event.worker, now)
    if event.stack:
        agent = ledger.rounds.agents[agent_name]
        recoveries = incidents.with_stack(ledger.recoveries, event.stack, agent)
        return replace(ledger, recoveries=recoveries)
    if event.fault is None:
        return ledger
    fault, is_echo = event.fault, incidents.is_echo(event.fault)
    state = rounds.faulted(ledger.rounds, agent_name, fault.round, now, is_echo=is_echo)
    after = _with_incident(replace(ledger, rounds=state))
    agent = after.rounds.agents[agent_name]
    after = replace(after, recoveries=incidents.with_fault(after.recoveries, fault, agent))
    if fault.symptom != symptoms.NON_FINITE:
        return after
    step = fault.step or (ledger.trained.latest.step + 1 if ledger.trained.latest else 1)
    return _rolled_back(after, fault.round, onset=step, seen_at=step)


def _with_worker_report(
    ledger: Ledger, agent_name: str, report: WorkerReport, now: float
) -> Ledger:
    if report.step:
        return _with_step(ledger, report.round, report.step, now)
    if report.own_time:
        times = stragglers.timed(
            ledger.own_times, ledger.straggler_policy, report, agent_name, report.own_time
        )
        return replace(ledger, own_times=times)
    if saving := report.saving:
        told = stalls.stepping_on if saving.over else stalls.saving
        state = rounds.paced(ledger.rounds, report.round, lambda pace: told(pace, saving.step, now))
        return replace(ledger, rounds=state)
    if report.restored:
        recoveries = incidents.with_restored(ledger.recoveries, report.round, report.restored)
        known = saved.with_restored(ledger.saved, report.restored)
        rhythm = cadence.restarted(ledger.rhythm)
        skipped = ledger.skipped.newer(report.restored.skipped)
        return replace(ledger, recoveries=recoveries, saved=known, rhythm=rhythm, skipped=skipped)
    if report.saved:
        known = saved.with_saved(ledger.saved, report.saved, ledger.quarantined)
        total_steps = ledger.identity.total_steps
        trained = progress.saved(ledger.trained, report.saved, total_steps)
        rhythm = cadence.saved(ledger.rhythm, report.saved)
        return replace(ledger, saved=known, trained=trained, rhythm=rhythm)
    if report.memory_saved:
        return _with_memory_saved(ledger, report.memory_saved)
    if report.quarantined:
        kept = (*ledger.quarantined, report.quarantined)[-KEPT_QUARANTINED:]
        known = saved.with_quarantined(ledger.saved, report.quarantined)
        return replace(ledger, quarantined=kept, saved=known)
    return ledger


def _with_memory_saved(ledger: Ledger, told: MemorySavedReport) -> Ledger:
    stalled = ledger.trained.stall_seconds + told.stall_seconds
    trained = replace(ledger.trained, stall_seconds=stalled)
    return replace(ledger, memory_saved=told, trained=trained)


def _with_step(ledger: Ledger, round_number: int, step: StepReport, now: float) -> Ledger:
    trained = progress.stepped(ledger.trained, step)
    first = incidents.rolled_back_to(ledger.recoveries, round_number)
    if first is not None:  # told late: its round went back to before that step
        trained = progress.rolled_back(trained, first)
    median_seconds = progress.median_step_seconds(trained)
    ends_segment = step.step in ledger.rounds.policy.boundaries
    is_last = ends_segment or step.step >= ledger.identity.total_steps
    state = rounds.paced(
        rounds.stepped(ledger.rounds, step.step),
        round_number,
        lambda pace: stalls.stepped(pace, step.step, median_seconds, now, is_last=is_last),
    )
    recoveries = incidents.with_step(ledger.recoveries, round_number, step)
    rhythm = cadence.stepped(ledger.rhythm, step)
    after = replace(ledger, trained=trained, rounds=state, recoveries=recoveries, rhythm=rhythm)
    return _without_spike(after, round_number, step.step, now)


def _without_spike(ledger: Ledger, round_number: int, step: int, now: float) -> Ledger:
    """With the round broken where its loss has spiked."""
    current = ledger.rounds.round
    if current is None or current.broken or current.number != round_number:
        return ledger
    onset = rollbacks.spike_onset(ledger.loss_policy, ledger.trained.losses, step)
    if onset is None:
        return ledger
    state = rounds.broken(ledger.rounds, Break(now, LOSS_SPIKE))
    after = _with_incident(replace(ledger, rounds=state))
    return _rolled_back(after, round_number, onset=onset, seen_at=step)


def _rolled_back(ledger: Ledger, round_number: int, *, onset: int, seen_at: int) -> Ledger:
    """With the batches skipped that made the loss of a round go wrong, once for all its workers."""
    last = ledger.recoveries[-1].incident if ledger.recoveries else None
    if last is None or last.round != round_number or last.rollback is not None:
        return ledger
    steps = (report.step for report in ledger.saved)
    decided = rollbacks.rollback(ledger.loss_policy, ledger.skipped, steps, onset, seen_at)
    after = replace(
        ledger, recoveries=incidents.with_rollback(ledger.recoveries, round_number, decided)
    )
    if decided.skipped is None or decided.first is None:
        return after
    return replace(
        after,
        skipped=ledger.skipped.with_rollback(decided.skipped),
        trained=progress.rolled_back(ledger.trained, decided.first),
    )


def _settled(before: Ledger, after: Ledger, now: float) -> Ledger:
    """Incidents follow the rounds; agents hear of every change through the revision."""
    after = _with_lost_agents(_with_incident(after), now)
    if names_a_round(before, after) and (formed := after.rounds.round):
        recoveries = incidents.with_round(after.recoveries, formed)
        restore = _restore(after, formed.members, now)
        after = replace(after, recoveries=recoveries, restore=restore)
    if (rounds.view_key(before.rounds), before.safe) == (rounds.view_key(after.rounds), after.safe):
        return after
    return replace(after, revision=before.revision + 1)


def _with_incident(ledger: Ledger) -> Ledger:
    """With an incident for the round that was broken last, once."""
    ended = ledger.rounds.ended
    if ended is None or any(r.incident.round == ended.number for r in ledger.recoveries):
        return ledger
    assert ended.broken is not None
    agent = ledger.rounds.agents.get(ended.broken.agent or "")
    last_step = ledger.trained.latest.step if ledger.trained.latest else 0
    recoveries = incidents.opened(ledger.recoveries, ended, agent, last_step)
    asked = ended.broken.evidence in (STOP_REQUESTED, MORE_NODES)  # it saved first
    rhythm = ledger.rhythm if asked else cadence.interrupted(ledger.rhythm)
    return replace(ledger, recoveries=recoveries, rhythm=rhythm)


def _with_lost_agents(ledger: Ledger, now: float) -> Ledger:
    recoveries = ledger.recoveries
    for name, agent in lost.lost_members(ledger.rounds, now):
        reason = Break(now, LEASE_EXPIRED, name)
        recoveries = incidents.with_lost_agent(recoveries, reason, agent)
    return replace(ledger, recoveries=recoveries)


def _shifted(event: AgentEvent, seconds: float) -> AgentEvent:
    """The event with its times moved from the agent's clock to this machine's."""
    if event.fault:
        return AgentEvent(fault=replace(event.fault, time=event.fault.time + seconds))
    if event.worker is None:
        return event
    moved = {
        name: replace(told, time=told.time + seconds)
        for name in (
            "step",
            "restored",
            "saving",
            "saved",
            "memory_saved",
            "quarantined",
            "own_time",
        )
        if (told := getattr(event.worker, name)) is not None
    }
    return AgentEvent(worker=replace(event.worker, **moved))
