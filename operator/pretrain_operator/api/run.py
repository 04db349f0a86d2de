"""One PretrainRun as the rest of the operator sees it, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from .spec import AnySpec
from .status import RunStatus


@dataclass(frozen=True)
class Run:
    """One PretrainRun. `spec` is None where it does not have the agreed form; see `spec_error`."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: AnySpec | None
    spec_error: str | None
    status: RunStatus
    deleting: bool = False
