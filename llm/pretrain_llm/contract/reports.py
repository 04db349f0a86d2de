"""What a worker tells its agent, and an agent its coordinator. Times are seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field

from .data_steps import SkippedData


@dataclass(frozen=True)
class StepReport:
    """One finished optimiser step, from rank 0."""

    step: int
    loss: float  # mean over the global batch, nats a token
    tokens: int  # trained so far, this step included
    seconds: float  # since the step before
    tokens_per_second: float  # of the whole world
    time: float
    gradient_norm: float | None = None
    mfu: float | None = None  # fraction, 0 to 1; None where the device's peak is unknown


# Where the state came from that a worker went on from.
PERSISTENT = "Persistent"  # a verified checkpoint on the volume
MEMORY = "Memory"  # its own node's memory
PEER = "Peer"  # the memory of another node, which held a copy
SCRATCH = "Scratch"  # nowhere: training begins


@dataclass(frozen=True)
class RestoredReport:
    """A worker is ready to step: set up, and loaded from `step` (0: from scratch)."""

    step: int
    time: float
    source: str = PERSISTENT
    skipped: SkippedData = field(default_factory=SkippedData)  # as the run's volume has it


@dataclass(frozen=True)
class SavingReport:
    """A checkpoint is begun: the next step may take longer. `over`: steps go on beside the rest."""

    step: int
    time: float
    over: bool = False


@dataclass(frozen=True)
class SavedReport:
    """A checkpoint is complete and its manifest is written."""

    step: int
    path: str
    bytes: int
    time: float
    stall_seconds: float  # how long training stood still for it
    seconds: float = 0.0  # from its beginning to the manifest


@dataclass(frozen=True)
class MemorySavedReport:
    """A worker's shard is whole in its node's memory. Its peer may not have the copy yet."""

    step: int
    bytes: int  # of this worker's shard
    stall_seconds: float
    time: float


@dataclass(frozen=True)
class QuarantinedReport:
    """A checkpoint did not verify and was moved away."""

    step: int
    reason: str
    path: str  # where it is now
    time: float


@dataclass(frozen=True)
class OwnTimeReport:
    """How long a rank computes by itself, where it waits for nobody."""

    step: int
    seconds: float  # mean of a block's forward pass, median over the steps since the last report
    time: float


@dataclass(frozen=True)
class WorkerReport:
    """One datagram from a worker to its agent: exactly one field besides rank and round is set."""

    rank: int
    round: int
    step: StepReport | None = None
    restored: RestoredReport | None = None
    saving: SavingReport | None = None
    saved: SavedReport | None = None
    memory_saved: MemorySavedReport | None = None
    quarantined: QuarantinedReport | None = None
    own_time: OwnTimeReport | None = None


@dataclass(frozen=True)
class StackReport:
    """Where one worker of a stalled round stood before it was killed, as its agent saw it."""

    round: int
    rank: int
    state: str  # the kernel's letter: R, S, D, T (stopped), Z; empty: the process is gone
    frames: tuple[str, ...] = ()  # of its main thread, innermost first; empty: it did not answer
    path: str | None = None  # of all its threads, on the run's volume; None: it did not answer


@dataclass(frozen=True)
class FaultReport:
    """One worker that ended when it should not have, as its agent saw it."""

    round: int
    rank: int
    time: float
    exit_code: int | None = None  # None where a signal ended it
    signal: int | None = None
    out_of_memory: bool = False  # the kernel's OOM killer, from the memory cgroup's counter
    error_kind: str | None = None
    error_message: str | None = None
    step: int | None = None  # in which it failed, where its error says so
    symptom: str | None = None  # symptoms.TABLE, by its error and the end of its stderr
    stderr: tuple[str, ...] = ()  # the lines that say so, bounded; nothing else of it is sent
