"""Where the wall time of a simulated run went, and what the operator said of its faults. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..api.status import IncidentStatus

Cause = Literal[
    "Start",
    "Detect",
    "Reschedule",
    "Restore",
    "FirstStep",
    "LostSteps",
    "CheckpointStall",
    "Drain",
    "Stopped",
]
CAUSES: tuple[Cause, ...] = (
    "Start",
    "Detect",
    "Reschedule",
    "Restore",
    "FirstStep",
    "LostSteps",
    "CheckpointStall",
    "Drain",
    "Stopped",
)
PHASES = ("detect_seconds", "reschedule_seconds", "restore_seconds", "first_step_seconds")


@dataclass(frozen=True)
class Result:
    """Productive time and badput add up to the wall time."""

    wall_seconds: float
    productive_seconds: float  # steps that count, each once
    badput_seconds: dict[Cause, float]
    steps: int
    finished: bool
    steps_lost: int  # run again
    interval_steps: int
    faults: int  # of the trace that hit something
    stops: tuple[str, ...]  # messages of the operator; a person had to act
    attempts: int
    incidents: tuple[IncidentStatus, ...]  # as the operator judged them

    @property
    def ettr(self) -> float:
        """Effective training time ratio: the productive share of the wall time."""
        return self.productive_seconds / self.wall_seconds if self.wall_seconds else 0.0

    @property
    def wall_minutes(self) -> float:
        return self.wall_seconds / 60

    def incident_classes(self) -> Counter[str]:
        return Counter(incident.fault_class for incident in self.incidents)

    def median_phases(self) -> dict[str, float | None]:
        """Over the incidents that came to a first step."""
        over = [i for i in self.incidents if i.first_step_seconds is not None]
        return {phase: _median(getattr(i, phase) for i in over) for phase in PHASES}


def document(result: Result) -> dict[str, Any]:
    """What `-o json` prints of it. Keys are stable; new ones may come."""
    return {
        "simulated": True,
        "ettr": result.ettr,
        "wallMinutes": result.wall_minutes,
        "wallSeconds": result.wall_seconds,
        "productiveSeconds": result.productive_seconds,
        "badputSeconds": result.badput_seconds,
        "steps": result.steps,
        "finished": result.finished,
        "stepsLost": result.steps_lost,
        "checkpointIntervalSteps": result.interval_steps,
        "faults": result.faults,
        "attempts": result.attempts,
        "stops": list(result.stops),
        "incidents": len(result.incidents),
        "incidentClasses": dict(result.incident_classes()),
        "medianPhases": result.median_phases(),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
