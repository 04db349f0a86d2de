"""Conditions of a run: their reasons, and how one is set. Pure.

docs/states.md is the table of the states; a test holds the two together.
"""

from __future__ import annotations

from typing import Literal

from .api.status import Condition, RunStatus
from .times import timestamp

Truth = Literal["True", "False", "Unknown"]

SUCCEEDED = "Succeeded"  # the summary; its reason is the printed State

# States of a run that is on its way.
PENDING = "Pending"
PREPARING_DATA = "PreparingData"
STARTING = "Starting"
TRAINING = "Training"
RECOVERING = "Recovering"
EXPORTING = "Exporting"
POST_TRAINING = "PostTraining"
DEPLOYING = "Deploying"
SUSPENDING = "Suspending"
SUSPENDED = "Suspended"
GOING = (
    PENDING,
    PREPARING_DATA,
    STARTING,
    TRAINING,
    RECOVERING,
    EXPORTING,
    POST_TRAINING,
    DEPLOYING,
    SUSPENDING,
    SUSPENDED,
)

# It waits for somebody to act, and goes on by itself then.
STORAGE_NOT_FOUND = "StorageNotFound"
IMAGE_PULL_FAILED = "ImagePullFailed"
CONTAINER_CONFIG_FAILED = "ContainerConfigFailed"
UNSCHEDULABLE = "Unschedulable"
CRASH_LOOPING = "CrashLooping"
WAITING = (
    STORAGE_NOT_FOUND,
    IMAGE_PULL_FAILED,
    CONTAINER_CONFIG_FAILED,
    UNSCHEDULABLE,
    CRASH_LOOPING,
)

# It is where it should be.
COMPLETED = "Completed"
SERVING = "Serving"
REACHED = (COMPLETED, SERVING)

# It does not go on by itself.
INVALID_SPEC = "InvalidSpec"
BAD_INPUT = "BadInput"
OUT_OF_MEMORY = "OutOfMemory"
STORAGE_FULL = "StorageFull"
LOSS_DIVERGED = "LossDiverged"
DO_NOT_RESTART = "DoNotRestart"
FAULT_BUDGET_SPENT = "FaultBudgetSpent"
NO_PROGRESS = "NoProgress"
STAGE_FAILED = "StageFailed"
STOPPED = (
    INVALID_SPEC,
    BAD_INPUT,
    OUT_OF_MEMORY,
    STORAGE_FULL,
    LOSS_DIVERGED,
    DO_NOT_RESTART,
    FAULT_BUDGET_SPENT,
    NO_PROGRESS,
    STAGE_FAILED,
)

# Conditions of the stages, in order.
STAGE_CONDITIONS = {
    "Data": "DataReady",
    "Training": "Trained",
    "Export": "Exported",
    "PostTraining": "PostTrained",
    "Serving": "Served",
}


def truth_of(state: str) -> Truth:
    """Status of the summary condition in a state."""
    if state in REACHED:
        return "True"
    return "False" if state in STOPPED else "Unknown"


def condition(status: RunStatus, kind: str) -> Condition | None:
    return next((item for item in status.conditions if item.type == kind), None)


def state(status: RunStatus) -> str | None:
    """The reason of the summary; None before the first pass."""
    summary = condition(status, SUCCEEDED)
    return summary.reason if summary else None


def is_stopped(status: RunStatus) -> bool:
    """By a verdict that only a change of the spec leaves; InvalidSpec is judged anew each pass."""
    return state(status) in STOPPED and state(status) != INVALID_SPEC


def with_condition(
    status: RunStatus,
    kind: str,
    truth: Truth,
    reason: str,
    message: str,
    *,
    generation: int,
    now: float,
) -> RunStatus:
    """The time of transition moves only where the truth does, as the conventions say."""
    old = condition(status, kind)
    same = old is not None and old.status == truth
    new = Condition(
        type=kind,
        status=truth,
        reason=reason,
        message=message,
        last_transition_time=old.last_transition_time if old and same else timestamp(now),
        observed_generation=generation,
    )
    if old is None:
        conditions = (*status.conditions, new)
    else:
        conditions = tuple(new if item.type == kind else item for item in status.conditions)
    return status.model_copy(update={"conditions": conditions})


def without_condition(status: RunStatus, kind: str) -> RunStatus:
    kept = tuple(item for item in status.conditions if item.type != kind)
    return status.model_copy(update={"conditions": kept})


def with_state(
    status: RunStatus, new: str, message: str, *, generation: int, now: float
) -> RunStatus:
    """With the summary in a state, and since when."""
    since = status.state_since if state(status) == new else timestamp(now)
    after = with_condition(
        status, SUCCEEDED, truth_of(new), new, message, generation=generation, now=now
    )
    return after.model_copy(update={"state_since": since, "observed_generation": generation})
