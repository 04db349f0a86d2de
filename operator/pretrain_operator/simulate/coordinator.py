"""The agents of an attempt, as its real ledger sees them: who reports what, and when.

The only module of the operator that calls the coordinator's code; see the package's docstring.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pretrain_llm.contract import protocol
from pretrain_llm.contract.memory import Generation, Holding, MemoryStanding, Restore
from pretrain_llm.contract.protocol import AgentEvent, AgentReport
from pretrain_llm.contract.reports import (
    FaultReport,
    RestoredReport,
    SavedReport,
    StepReport,
    WorkerReport,
)
from pretrain_llm.contract.status import StatusDocument
from pretrain_llm.coordinator import ledger as ledgers
from pretrain_llm.coordinator.rounds import Policy, Round, is_live
from pretrain_llm.coordinator.stalls import Patience

from ..api.recovery import Stall

REPORT_SECONDS = protocol.REPORT_SECONDS


@dataclass
class Agent:
    """One node slot's pod and the node that it is on."""

    name: str
    slot: int
    node: str
    state: str = protocol.PREPARING
    round: int = 0
    saved: bool = False
    silent: bool = False  # its node is gone
    broken_device: bool = False  # workers on this node fail again
    hung_in: int = 0  # the round in which its workers came to stand still
    events: int = 0  # reported so far
    memory: MemoryStanding | None = None

    @property
    def is_sound(self) -> bool:
        leaving = self.state in (protocol.LEAVING, protocol.LEFT)
        return not (self.silent or self.broken_device or leaving)


@dataclass
class Coordinator:
    run: str
    attempt: int
    total_steps: int
    members_wanted: int
    spares: int
    stall: Stall
    started_at: float
    agents: dict[str, Agent] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identity = ledgers.Identity(self.run, self.attempt, self.total_steps, "simulated")
        limits = self.stall
        patience = Patience(limits.factor, limits.floor_seconds, limits.quiet_seconds)
        self._policy = Policy(self.members_wanted, self.spares, patience=patience)
        self._ledger = ledgers.opened(identity, self._policy, self.started_at)

    @property
    def round(self) -> Round | None:
        return self._ledger.rounds.round

    @property
    def restore(self) -> Restore | None:
        """What the newest round starts from in memory; None: from the volume."""
        return self._ledger.restore

    @property
    def members(self) -> list[Agent]:
        """Of the newest round, by rank; those whose pods are gone are left out."""
        names = self.round.members if self.round else ()
        return [self.agents[name] for name in names if name in self.agents]

    @property
    def is_hung(self) -> bool:
        number = self.round.number if self.round else 0
        return any(agent.hung_in == number for agent in self.members)

    def document(self, now: float) -> StatusDocument:
        return ledgers.status(self._ledger, now)

    def is_settled(self, now: float) -> bool:
        """Whether only time passes: a round steps and every silence is known, or all prepare."""
        if all(agent.state == protocol.PREPARING for agent in self.agents.values()):
            return True
        current = self.round
        if current is None or current.broken or current.draining:
            return False
        return not self.is_hung and not any(
            agent.silent and self._believed(agent, now) for agent in self.members
        )

    def tick(self, now: float, *, with_reports: bool) -> None:
        """`with_reports`: every agent that can renews its lease."""
        if with_reports:
            for agent in list(self.agents.values()):
                self.report(agent, now)
        self._ledger = ledgers.ticked(self._ledger, now)

    def report(self, agent: Agent, now: float, *events: AgentEvent) -> None:
        if agent.silent:
            return
        current = self.round
        told = AgentReport(
            agent=agent.name,
            incarnation=agent.name,
            attempt=self.attempt,
            slot=agent.slot,
            node=agent.node,
            state=agent.state,
            time=now,
            round=agent.round,
            highest_round=current.number if current else 0,
            members=current.members if current else (),
            saved=agent.saved,
            first_event=agent.events,
            events=events,
            memory=agent.memory,
        )
        agent.events += len(events)
        self._ledger = ledgers.told(self._ledger, told, now)

    # What is in memory: each member has its own shards, and the copy of the member's before it

    def entered(self) -> None:
        """The newest round's members keep what they start from, and nothing else."""
        self._hold(self.restore.generation if self.restore else None, None)

    def kept(self, step: int | None, copied_step: int | None, now: float) -> None:
        """The newest round's members have saved `step`; of `copied_step` there are copies, too."""
        number = self.round.number if self.round else 0
        steps = (step, copied_step)
        own, copied = (None if s is None else self._generation(number, s) for s in steps)
        self._hold(own, copied)
        for agent in self.members:
            self.report(agent, now)

    def _generation(self, number: int, step: int) -> Generation:
        started = self.restore.generation if self.restore else None
        return started if started and started.step == step else Generation(number, step)

    def _hold(self, own: Generation | None, copied: Generation | None) -> None:
        names = self.round.members if self.round else ()
        for rank, name in enumerate(names):
            if (agent := self.agents.get(name)) is None:
                continue
            shards = [(own, rank), (copied, rank), (copied, (rank - 1) % len(names))]
            held = [Holding(of, shard, len(names), 0) for of, shard in dict.fromkeys(shards) if of]
            if held or agent.memory:
                agent.memory = MemoryStanding(f"{name}:0", tuple(held))

    # Events of workers: told by the first member that can

    def restored(self, step: int, now: float) -> None:
        self._worker(now, restored=RestoredReport(step, now))

    def stepped(self, step: int, seconds: float, now: float) -> None:
        report = StepReport(
            step=step, loss=1.0, tokens=step, seconds=seconds, tokens_per_second=0.0, time=now
        )
        self._worker(now, step=report)

    def saved(self, step: int, stall_seconds: float, now: float) -> None:
        path = f"checkpoints/step-{step}"
        self._worker(now, saved=SavedReport(step, path, 0, now, stall_seconds))

    def _worker(
        self,
        now: float,
        *,
        step: StepReport | None = None,
        restored: RestoredReport | None = None,
        saved: SavedReport | None = None,
    ) -> None:
        teller = next((agent for agent in self.members if not agent.silent), None)
        if teller is None or self.round is None:
            return
        report = WorkerReport(0, self.round.number, step=step, restored=restored, saved=saved)
        self.report(teller, now, AgentEvent(worker=report))

    def failed(self, agent: Agent, now: float, fault: FaultReport) -> None:
        self.report(agent, now, AgentEvent(fault=fault))

    def _believed(self, agent: Agent, now: float) -> bool:
        known = self._ledger.rounds.agents.get(agent.name)
        return known is not None and is_live(known, self._policy, now)
