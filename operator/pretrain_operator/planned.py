"""What one pass decided, frozen: the status to commit first, then what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .api.status import RunStatus
from .observed import ObjectKey

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class Deletion:
    key: ObjectKey
    grace_seconds: int | None = None  # 0: force, for a pod whose node is gone
    uid: str | None = None  # only this very object


@dataclass(frozen=True)
class Event:
    """An Event's name is a function of what it tells, so telling it twice makes one Event."""

    key: str  # unique within the run, for example Incident-1-4
    type: EventType
    reason: str
    message: str
    time: float  # of what it tells


@dataclass(frozen=True)
class Plan:
    status: RunStatus
    apply: tuple[Mapping[str, Any], ...] = ()  # whole desired objects, in this order
    create: tuple[Mapping[str, Any], ...] = ()  # if nothing of the name is there
    delete: tuple[Deletion, ...] = ()
    events: tuple[Event, ...] = ()
    requeue_after_seconds: float | None = None  # None: only a change wakes the run
