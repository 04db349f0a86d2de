"""Children that the API server would not take, as a condition that the user reads. Pure.

The decision core knows only what it wants; that a wanted object is refused (an invalid volume in a
template, a quota, a missing permission) is known after the plan was made. It is told with the next
status, and taken back with the first pass in which nothing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .api.status import RunStatus
from .conditions import condition, with_condition
from .observed import ObjectKey

CONDITION = "ChildrenAccepted"
REASON = "ChildRefused"
RETRY_SECONDS = 30.0  # what others do (a quota, a permission) may make it right


@dataclass(frozen=True)
class Refusal:
    message: str  # the API server's
    digest: str  # of the desired object that was refused
    time: float


def is_pointless(refusal: Refusal, digest: str, now: float) -> bool:
    """Whether the same object was refused a moment ago."""
    return refusal.digest == digest and now - refusal.time < RETRY_SECONDS


def with_refusals(
    status: RunStatus, refusals: Mapping[ObjectKey, Refusal], *, generation: int, now: float
) -> RunStatus:
    """The status with a ChildrenAccepted condition where there is or was something to tell."""
    if refusals:
        child, refusal = min(refusals.items())
        message = (
            f"{child.kind} {child.name}: the API server refused it: {refusal.message} "
            "Correct the field of the spec that it comes from."
        )
        return with_condition(
            status, CONDITION, "False", REASON, message, generation=generation, now=now
        )
    if (told := condition(status, CONDITION)) is None or told.status == "True":
        return status
    message = "All children were accepted."
    return with_condition(
        status, CONDITION, "True", "Accepted", message, generation=generation, now=now
    )
