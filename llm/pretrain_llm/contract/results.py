"""What a stage leaves in its pod's termination message: a result, or why it failed."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_MESSAGE_BYTES = 4096  # Kubernetes keeps no more of a termination message


@dataclass(frozen=True)
class StageResult:
    """A finished stage. The digest covers the artifact's files, through its manifest."""

    stage: str  # Data | Export | PostTraining
    path: str
    digest: str
    step: int | None = None
    name: str | None = None
    source_digests: tuple[str, ...] = ()  # digests of the artifacts it was made from
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    mean_of: tuple[str, ...] = ()  # of an exported soup: run, step and share of each checkpoint


@dataclass(frozen=True)
class StageError:
    """Why a program gave up, for the user: the field of the spec, its value, and what to do."""

    message: str
    kind: str  # the exception's class
    exit_code: int
    field: str | None = None
    value: str | None = None
    remedy: str | None = None
    step: int | None = None  # of training, in which it happened

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        found = f" (found {self.value})" if self.value else ""
        then = f" {self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{found}.{then}"


@dataclass(frozen=True)
class TerminationMessage:
    """Exactly one of the two is set."""

    result: StageResult | None = None
    error: StageError | None = None
