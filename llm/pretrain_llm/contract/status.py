"""The document at the coordinator's `/status`: what the operator knows of a training attempt.

Times are seconds since the epoch, by the coordinator's clock where it saw the thing itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .data_steps import DataSteps, SkippedData
from .intervals import Cadence
from .reports import FaultReport, QuarantinedReport, SavedReport

# What showed that a round was broken: Incident.evidence.
WORKER_EXIT = "WorkerExit"
LEASE_EXPIRED = "LeaseExpired"
AGENT_RESTARTED = "AgentRestarted"
STALLED = "Stalled"  # all agents answer, and no step comes
LOSS_SPIKE = "LossSpike"
STOP_REQUESTED = "StopRequested"  # drain, preemption, suspension: no fault of the run
MORE_NODES = "MoreNodes"  # the round had shrunk, and nodes are back: no fault either
EVIDENCE = (
    WORKER_EXIT,
    LEASE_EXPIRED,
    AGENT_RESTARTED,
    STALLED,
    LOSS_SPIKE,
    STOP_REQUESTED,
    MORE_NODES,
)


@dataclass(frozen=True)
class AgentStatus:
    name: str  # the pod's name
    slot: int
    node: str
    state: str  # protocol.AGENT_STATES: Preparing | Waiting | Running | Finished | Leaving | Left
    last_seen: float
    rank: int | None = None  # node rank in the round; None: a spare, or not in yet


@dataclass(frozen=True)
class Progress:
    step: int
    total_steps: int
    loss: float
    initial_loss: float
    tokens: int
    tokens_per_second: float
    step_seconds: float  # median of the last steps
    time: float  # of the last step
    mfu: float | None = None


@dataclass(frozen=True)
class FirstStep:
    """The first step that a coordinator heard of: there the attempt's start is over."""

    step: int
    time: float


@dataclass(frozen=True)
class Replay:
    """Steps that were run again after a restart: on CPU the losses must be equal."""

    steps: int = 0
    max_loss_difference: float = 0.0


@dataclass(frozen=True)
class MemoryCheckpoint:
    """The newest checkpoint that any one node can be lost without losing."""

    step: int
    bytes: int  # of all nodes, without the copies
    stall_seconds: float  # how long training stood still for the newest save
    problem: str | None = None  # why no newer one has its copies, in words


@dataclass(frozen=True)
class Suspicion:
    """A rank that may be to blame for a stall, and why."""

    rank: int
    reason: str
    frames: tuple[str, ...] = ()  # innermost first, few


@dataclass(frozen=True)
class Straggler:
    """A rank that computes slower than the others, as of now."""

    rank: int
    agent: str
    node: str
    z_score: float  # robust sigmas above the ranks' median
    own_seconds: float  # of a block's forward pass
    median_seconds: float  # of all ranks


@dataclass(frozen=True)
class Rollback:
    """What was decided about a loss that spiked or was not finite."""

    onset: int  # the first step that went wrong
    first: int | None = None  # the first step that trains on other data now
    skipped: DataSteps | None = None  # None: spec.recovery.loss.maxRollbacks were spent


@dataclass(frozen=True)
class Incident:
    """One broken round and its recovery.

    A duration is None until it is over, and stays so where the next incident cut it short.

    fault      broken         next round       workers          first step
      |--detect--|--reschedule--|----restore----|---first step---|
    """

    round: int  # the round that broke: with the attempt, the incident's identity
    time: float  # of the fault
    evidence: str  # one of EVIDENCE
    agent: str | None = None
    slot: int | None = None
    node: str | None = None
    first_fault: FaultReport | None = None  # the earliest genuine failure
    suspects: tuple[Suspicion, ...] = ()  # of a stall, bounded
    stacks_path: str | None = None  # folder with the stacks of a stalled round's workers
    rollback: Rollback | None = None  # of a loss that went wrong
    echoes: int = 0  # workers that ended because the first one did
    last_step: int = 0  # reached before the fault
    detect_seconds: float | None = None
    reschedule_seconds: float | None = None
    restore_seconds: float | None = None
    first_step_seconds: float | None = None
    resumed_step: int | None = None
    restored_from: str | None = None  # reports.PERSISTENT | MEMORY | PEER | SCRATCH
    nodes: int | None = None  # of the round that broke
    next_nodes: int | None = None  # of the round after it

    @property
    def has_shrunk(self) -> bool:
        return self.nodes is not None and (self.next_nodes or self.nodes) < self.nodes

    @property
    def steps_lost(self) -> int | None:
        if self.resumed_step is None:
            return None
        return max(0, self.last_step - self.resumed_step)


@dataclass(frozen=True)
class StatusDocument:
    run: str
    attempt: int
    time: float
    started_at: float  # of this coordinator
    round: int = 0
    round_formed_at: float | None = None
    broken: bool = True  # waiting for the next round
    waiting_for: str | None = None  # why there is no round, in words
    wanted_nodes: int | None = None  # of a round that lacks none
    agents: tuple[AgentStatus, ...] = ()
    progress: Progress | None = None
    first_step: FirstStep | None = None
    replay: Replay = Replay()
    latest_checkpoint: SavedReport | None = None
    memory_checkpoint: MemoryCheckpoint | None = None
    stall_seconds: float = 0.0  # of all saves of the attempt, but for the one after the last step
    cadence: Cadence = field(default_factory=Cadence)
    quarantined: tuple[QuarantinedReport, ...] = ()
    skipped: SkippedData = field(default_factory=SkippedData)
    stragglers: tuple[Straggler, ...] = ()  # of the running round, slowest first, bounded
    incidents: tuple[Incident, ...] = ()  # oldest first, bounded
    finished: bool = False  # all agents of the round left after the last step
