"""What an agent and its coordinator say to each other. HTTP, JSON by `codec`.

POST /agents/report         AgentReport -> RoundView
GET  /agents/view?known=N   RoundView, as soon as its revision is not N, or at the latest after
                            HOLD_SECONDS

Every report says all that a new coordinator needs to go on with the running round: the agent
repeats what the last coordinator told it (`members`, `formed_at`, `carried`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .data_steps import SkippedData
from .intervals import Cadence
from .memory import MemoryStanding, MemoryView
from .reports import FaultReport, SavedReport, StackReport, StepReport, WorkerReport
from .status import Incident, Replay

REPORT_PATH = "/agents/report"
VIEW_PATH = "/agents/view"
HOLD_SECONDS = 10.0
REPORT_SECONDS = 0.5  # between two reports of an agent
LEASE_SECONDS = 6 * REPORT_SECONDS  # without one, an agent is lost
MAX_EVENTS = 500  # in one report
MAX_REPORT_BYTES = 1 << 20

PREPARING = "Preparing"  # importing what its workers need
WAITING = "Waiting"  # for a round to be part of
RUNNING = "Running"  # its workers
FINISHED = "Finished"  # its workers ended with 0; waits for the others
LEAVING = "Leaving"  # asked to stop; its workers are saving
LEFT = "Left"  # its last word
AGENT_STATES = (PREPARING, WAITING, RUNNING, FINISHED, LEAVING, LEFT)


@dataclass(frozen=True)
class AgentEvent:
    """Exactly one of them is set."""

    worker: WorkerReport | None = None
    fault: FaultReport | None = None
    stack: StackReport | None = None


@dataclass(frozen=True)
class RecentIncident:
    """An incident that its coordinator may not live to tell, and the times it is measured by."""

    incident: Incident
    broken_at: float
    next_round: int | None = None
    formed_at: float | None = None  # of the next round
    restored_at: float | None = None
    over: bool = False


@dataclass(frozen=True)
class Carried:
    """What the agents keep for a coordinator that comes after this one."""

    initial_loss: float | None = None
    highest_step: int = 0  # reached in any round
    replay: Replay = field(default_factory=Replay)
    latest_step: StepReport | None = None
    latest_checkpoint: SavedReport | None = None
    stall_seconds: float = 0.0
    cadence: Cadence = field(default_factory=Cadence)
    skipped: SkippedData = field(default_factory=SkippedData)
    incidents: tuple[RecentIncident, ...] = ()


@dataclass(frozen=True)
class AgentReport:
    agent: str  # the pod's name
    incarnation: str  # of the agent's process: another one under the same name is a restart
    attempt: int
    slot: int
    node: str
    state: str  # one of AGENT_STATES
    time: float  # of sending, by the agent's clock, as all times in `events`
    round: int = 0  # the newest this agent took part in; 0: none
    highest_round: int = 0  # the newest it has heard of
    members: tuple[str, ...] = ()  # of `round`, by rank
    formed_at: float | None = None
    saved: bool = False  # its workers ended `round` with exit_codes.SAVED
    first_event: int = 0  # number of events[0]
    events: tuple[AgentEvent, ...] = ()  # those not acknowledged yet, oldest first
    carried: Carried = field(default_factory=Carried)
    memory: MemoryStanding | None = None  # None: spec.checkpoint.memory is not set

    def __post_init__(self) -> None:
        if self.state not in AGENT_STATES:
            raise ValueError(f"state: {self.state!r} is none of {', '.join(AGENT_STATES)}")
        if not self.agent or not self.incarnation:
            raise ValueError("agent and incarnation must not be empty")
        if min(self.slot, self.round, self.highest_round, self.first_event) < 0:
            raise ValueError("slot, round, highestRound and firstEvent must not be negative")
        if len(self.events) > MAX_EVENTS:
            raise ValueError(f"events: {len(self.events)} in one report, over {MAX_EVENTS}")


@dataclass(frozen=True)
class RoundView:
    """The round as one agent must see it."""

    coordinator: str  # of this coordinator's process: revisions of another do not compare
    revision: int  # grows with every change of round, draining, broken or finished
    round: int = 0  # the newest; 0: none yet
    members: tuple[str, ...] = ()  # names of its agents, by rank
    formed_at: float | None = None
    broken: bool = True  # its workers must stop, now
    stalled: bool = False  # that is why it is broken: agents tell first where their workers stand
    draining: bool = False  # its workers must save and end: a round with more nodes follows
    finished: bool = False  # the run is: every agent exits with 0
    waiting_for: str | None = None  # why there is no round, in words
    acknowledged: int = 0  # events before this number need not be sent again
    carried: Carried = field(default_factory=Carried)
    memory: MemoryView = field(default_factory=MemoryView)

    def rank(self, agent: str) -> int | None:
        """The node rank of `agent` in the round; None: it is not in it."""
        return self.members.index(agent) if agent in self.members else None
