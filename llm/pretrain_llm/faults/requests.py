"""What is asked of one worker: a file that the worker takes away before it acts, so once only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..contract import codec, injection


@dataclass(frozen=True)
class Request:
    kind: str  # one of injection.IN_WORKER or AT_START
    seconds: float = injection.DEFAULT_SECONDS
    steps: int = injection.DEFAULT_STEPS

    @property
    def at_start(self) -> bool:
        """Not to be taken but before the first step of a round."""
        return self.kind in injection.AT_START


def path(scratch: Path, rank: int) -> Path:
    return scratch / f"fault-{rank}.json"


def leave(file: Path, request: Request) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(codec.to_json(request))
    os.replace(part, file)


def take(file: Path, *, at_start: bool) -> Request | None:
    """The request that is due, which is then gone; None where there is none."""
    try:
        request = codec.from_json(Request, file.read_bytes())
    except FileNotFoundError:
        return None
    if request.at_start and not at_start:
        return None
    file.unlink()
    return request
