"""What the operator reports. It is all that the operator remembers: children are a function of
(spec, status), so everything that a decision depends on is here, committed before anything is done.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import ApiModel

MAX_INCIDENTS = 20
MAX_EXCLUDED_NODES = 16  # of one run at once: more of them, and it is hardly the nodes
MAX_DISRUPTIONS = 16
MAX_ARTIFACTS = 32  # three stages and 16 of post-training, with room


class Condition(ApiModel):
    """As in the Kubernetes API conventions. `Succeeded` is the summary."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str
    observed_generation: int = 0


BadputCause = Literal[
    "Preparing",
    "Queued",
    "Starting",
    "Recovery",
    "LostSteps",
    "CheckpointStall",
    "Suspended",
    "Stopped",
    "Finishing",
]
Activity = Literal[
    "Preparing", "Queued", "Starting", "Stepping", "Recovery", "Suspended", "Stopped", "Finished"
]


class TimeAccount(ApiModel):
    """How far the time of the run is booked. It goes on from here, whoever the operator is."""

    activity: Activity = Field(description="What the run does since `until`.")
    until: str = Field(description="All time before is booked.")
    step: int = Field(0, description="Last step that is booked.")
    highest_step: int = Field(0, description="Steps up to it are lost when made again.")
    stall_seconds: float = Field(0.0, description="Of the coordinator's count, booked so far.")


class SkippedData(ApiModel):
    """Global batches that are never trained, because the loss went wrong there."""

    first: int = Field(description="Data step, from 0.")
    end: int = Field(description="The data step after the last one skipped.")


class StragglerStatus(ApiModel):
    """A rank that computes slower than the others."""

    rank: int
    pod: str
    node: str
    z_score: float = Field(description="Robust sigmas above the ranks' median.")
    slowdown: float = Field(description="Its own time over the ranks' median.")


class TrainingStatus(ApiModel):
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    loss: float | None = None
    initial_loss: float | None = Field(None, description="Of the first step of the run.")
    tokens_per_second: float | None = None
    step_seconds: float | None = Field(None, description="Median of the last steps.")
    mfu: float | None = Field(None, description="Model FLOPs utilisation, 0 to 1.")
    nodes: int = Field(0, description="Node slots in the current round.")
    wanted_nodes: int | None = Field(None, description="Node slots of a round that lacks none.")
    replayed_steps: int = Field(0, description="Steps run again after restarts.")
    updated_at: str | None = Field(None, description="When these figures were written.")
    replayed_max_loss_difference: float = Field(
        0.0, description="Largest difference of the loss between two runs of one step."
    )
    stragglers: tuple[StragglerStatus, ...] = Field(
        (), description="Slow ranks of the running round, slowest first, bounded."
    )
    skipped_data: tuple[SkippedData, ...] = Field(
        (), description="Of each rollback of a loss that went wrong, in their order."
    )
    goodput: float | None = Field(
        None, description="Productive time of the time since the run was admitted, 0 to 1."
    )
    productive_seconds: float = Field(0.0, description="Steps made for the first time.")
    badput_seconds: dict[str, float] = Field(
        {}, description="All other time, by cause; with the productive, the time up to the account."
    )
    account: TimeAccount | None = None


class CheckpointStatus(ApiModel):
    step: int
    path: str
    time: str
    stall_seconds: float | None = None


class MemoryCheckpointStatus(ApiModel):
    step: int = Field(description="Newest that any one node can be lost without losing; 0: none.")
    stall_seconds: float | None = Field(None, description="Of the newest save.")
    problem: str | None = Field(None, description="Why no newer one has its copies.")


class CadenceStatus(ApiModel):
    """How often the run saves, and from what auto decides it."""

    interval_steps: int = Field(description="Between two saves.")
    stall_seconds: float | None = Field(None, description="Training stands still for a save.")
    dip_seconds: float | None = Field(
        None, description="The 10 steps after a save take longer, by so much together."
    )
    save_seconds: float | None = Field(None, description="A save takes, until it is verified.")
    stall_share: float | None = Field(None, description="Of the time between two saves, 0 to 1.")
    mtbf_seconds: float = Field(
        description="Mean time between interruptions that is reckoned with."
    )
    interruptions: int = Field(description="Of the attempt.")


class BlockingStatus(ApiModel):
    """Saves that stall training for too long a share of the time between them."""

    time: str
    step: int
    stall_share: float
    enough_steps: int = Field(description="Shortest interval that would do.")


class QuarantineStatus(ApiModel):
    step: int
    path: str
    reason: str
    time: str


class Checkpoints(ApiModel):
    latest: CheckpointStatus | None = Field(None, description="Newest verified one.")
    memory: MemoryCheckpointStatus | None = Field(None, description="Newest one in memory.")
    cadence: CadenceStatus | None = Field(None, description="How often the run saves.")
    blocking: BlockingStatus | None = Field(
        None, description="Since when saves stall training by more than 2 %; none: they do not."
    )
    quarantined: tuple[QuarantineStatus, ...] = Field(
        (), description="Newest; damaged ones moved away."
    )


class Suspect(ApiModel):
    rank: int | None = None
    pod: str | None = None
    node: str | None = None


class IncidentStatus(ApiModel):
    """One fault and its recovery."""

    attempt: int
    round: int
    time: str
    fault_class: str = Field(alias="class", description="Row of the fault table.")
    cause: str = Field(description="The first genuine failure, in words.")
    budget: Literal["Infrastructure", "Application", "None"]
    level: Literal["WorkerRestart", "NodeReplacement", "Shrink", "Grow", "NewAttempt", "Stop"]
    nodes: int | None = Field(None, description="Node slots of the round after it.")
    suspect: Suspect = Suspect()
    echoes: int = Field(0, description="Workers that failed only because of this fault.")
    detect_seconds: float | None = None
    reschedule_seconds: float | None = None
    restore_seconds: float | None = None
    first_step_seconds: float | None = None
    steps_lost: int | None = None
    restored_from: str | None = Field(
        None, description="Memory, Peer (another node's copy), Persistent, or Scratch: nothing."
    )
    settled: bool = Field(False, description="Over: its class stays, and it counts in metrics.")


class IncidentTotals(ApiModel):
    """Of incidents that are no longer listed."""

    classes: dict[str, int] = Field({}, description="How many, by class.")
    phase_seconds: dict[str, float] = Field({}, description="Their durations, by phase.")
    steps_lost: int = 0


class ExcludedNode(ApiModel):
    """A node that no training pod of the run is put on until then."""

    name: str
    since: str
    until: str
    reason: str = Field(description="The faults that led to it.")
    scope: Literal["Run", "AllRuns"] = Field(
        "Run", description="AllRuns: the operator keeps the node from every run."
    )


class Disruption(ApiModel):
    """Of a training pod that somebody takes away: its object goes before the fault is told."""

    pod: str
    reason: str = Field(description="Of its condition DisruptionTarget.")
    message: str = ""
    node: str | None = Field(default=None, description="That it was on.")


class Budgets(ApiModel):
    """Faults charged since the last progress; totals never fall."""

    infrastructure: int = 0
    application: int = 0
    step: int = Field(0, description="Step that the run must pass to reset the counts.")
    total: int = Field(0, description="Faults charged in the whole run.")


class StageTime(ApiModel):
    """Only for the record (reports, durations); no decision is taken from it."""

    stage: str
    name: str | None = None
    started_at: str
    finished_at: str | None = None


class Artifact(ApiModel):
    """What a finished stage made. Never taken back: a finished stage stays finished."""

    stage: Literal["Data", "Training", "Export", "PostTraining"]
    name: str | None = None
    path: str
    digest: str | None = None
    step: int | None = None
    source: tuple[str, ...] = Field(
        (), alias="from", description="Digests of what it was made from."
    )
    mean_of: tuple[str, ...] = Field(
        (), description="Of an exported soup: run, step and share of each checkpoint."
    )
    metrics: dict[str, float] = Field({}, description="What it measured.")
    time: str


class ServingStatus(ApiModel):
    url: str | None = Field(None, description="OpenAI API, inside the cluster.")
    model: str | None = None
    ready_replicas: int = 0


class RunStatus(ApiModel):
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    state_since: str | None = Field(None, description="Since when the State is what it is.")
    retries: int = Field(0, description="Times that a stopped run was changed and went on.")
    attempt: int = Field(0, description="Number of the training Job; 0: none yet.")
    attempt_time: str | None = Field(None, description="When the attempt was decided.")
    config_digest: str | None = Field(None, description="Of what the attempt is made from.")
    training: TrainingStatus | None = None
    checkpoints: Checkpoints = Checkpoints()
    budgets: Budgets = Budgets()
    last_incident_round: int = Field(0, description="Of this attempt: those up to it are counted.")
    coordinator_started_at: str | None = Field(
        None,
        description="Of the coordinator whose rounds are counted; none: the attempt had no round.",
    )
    incidents: tuple[IncidentStatus, ...] = Field((), description="Newest, bounded.")
    forgotten_incidents: IncidentTotals = IncidentTotals()
    excluded_nodes: tuple[ExcludedNode, ...] = Field(
        (), max_length=MAX_EXCLUDED_NODES, description="Nodes that faults led away from."
    )
    disruptions: tuple[Disruption, ...] = Field(
        (), max_length=MAX_DISRUPTIONS, description="Newest, bounded."
    )
    artifacts: tuple[Artifact, ...] = Field((), max_length=MAX_ARTIFACTS)
    stages: tuple[StageTime, ...] = ()
    serving: ServingStatus | None = None
