"""What went wrong after or beside the plan, as conditions that the user reads. Pure.

The decision core knows only what it wants; that a wanted object is refused (an invalid volume in a
template, a quota, a missing permission) is known after the plan was made. It is told with the next
status, and taken back with the first pass in which nothing is refused. A pass that failed is told
at once, if the status can be written at all, and taken back once one has come to its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .api.status import RunStatus
from .conditions import condition, with_condition
from .observed import ObjectKey

CONDITION = "ChildrenAccepted"
REASON = "ChildRefused"
RECONCILED = "Reconciled"
_SHOWN_CHARACTERS = 500
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
    return _taken_back(
        status, CONDITION, "Accepted", "All children were accepted.", generation, now
    )


def failure(error: Exception) -> str:
    """A failed pass in words."""
    return f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]


def with_failure(
    status: RunStatus, failed: str | None, *, generation: int, now: float
) -> RunStatus:
    """The status with a Reconciled condition where a pass has failed, or had."""
    if failed is not None:
        message = f"The operator tries again, and its log says more: {failed}"
        return with_condition(
            status, RECONCILED, "False", "PassFailed", message, generation=generation, now=now
        )
    message = "Passes come to their end."
    return _taken_back(status, RECONCILED, "PassFinished", message, generation, now)


def _taken_back(
    status: RunStatus, kind: str, reason: str, message: str, generation: int, now: float
) -> RunStatus:
    """Only what was told is taken back."""
    if (told := condition(status, kind)) is None or told.status == "True":
        return status
    return with_condition(status, kind, "True", reason, message, generation=generation, now=now)
