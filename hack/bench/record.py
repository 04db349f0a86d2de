"""What has been measured so far: one JSON line a trial; a killed bench loses one at most."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .measure import Phases
from .trials import Trial


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    phases: Phases | None = None
    failure: str | None = None  # in place of phases
    step_seconds: float | None = None  # median before the fault
    commit: str = ""  # of this repository


def to_line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def from_line(line: str) -> Outcome:
    found = json.loads(line)
    phases = found["phases"] and Phases(**found["phases"])
    return Outcome(**found | {"trial": Trial(**found["trial"]), "phases": phases})


def read(path: Path) -> list[Outcome]:
    """Nothing if there is no file; a last line that was cut off does not count."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [from_line(line) for line in lines]


def append(path: Path, outcome: Outcome) -> None:
    with path.open("a") as file:
        file.write(to_line(outcome))
