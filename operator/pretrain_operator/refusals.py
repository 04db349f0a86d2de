"""Children that the API server would not take, as a condition that the user reads. Pure.

The decision core knows only what it wants; that a wanted object is refused (an invalid volume in a
template, a quota, a missing permission) is known after the plan was made. It is told with the next
status, and taken back with the first pass in which nothing is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .api.status import Condition, RunStatus
from .observed import ObjectKey
from .times import timestamp

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
    status: RunStatus, refusals: Mapping[ObjectKey, Refusal], now: float
) -> RunStatus:
    """The status with a ChildrenAccepted condition where there is or was something to tell.

    A summary that is still open names the refusal as its reason, so that it is seen in
    `kubectl get`; a summary that is settled stays.
    """
    known = {condition.type: condition for condition in status.conditions}
    if not refusals:
        if CONDITION not in known or known[CONDITION].status == "True":
            return status
        accepted = Condition(
            type=CONDITION,
            status="True",
            reason="Accepted",
            message="All children were accepted.",
            last_transition_time=timestamp(now),
            observed_generation=status.observed_generation,
        )
        return _replaced(status, {CONDITION: accepted})
    child, refusal = min(refusals.items())
    message = (
        f"{child.kind} {child.name}: the API server refused it: {refusal.message} "
        "Correct the field of the spec that it comes from."
    )
    before = known.get(CONDITION)
    same = before is not None and before.status == "False"
    refused = Condition(
        type=CONDITION,
        status="False",
        reason=REASON,
        message=message,
        last_transition_time=before.last_transition_time if before and same else timestamp(now),
        observed_generation=status.observed_generation,
    )
    changed = {CONDITION: refused}
    summary = known.get("Succeeded")
    if summary is not None and summary.status == "Unknown":
        update = {"reason": REASON, "message": message}
        changed["Succeeded"] = summary.model_copy(update=update)
    return _replaced(status, changed)


def _replaced(status: RunStatus, changed: Mapping[str, Condition]) -> RunStatus:
    kept = [changed.get(condition.type, condition) for condition in status.conditions]
    present = {condition.type for condition in kept}
    added = [condition for kind, condition in changed.items() if kind not in present]
    return status.model_copy(update={"conditions": (*kept, *added)})
