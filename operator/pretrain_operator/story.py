"""The Events of a run, as a function of its status: told once, whatever is killed when. Pure.

An Event's key says what it tells, so a second telling meets the first one's name. Nothing is kept
of what was told; the shell leaves out what is older than the API server keeps Events.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_llm.contract.intervals import MAX_STALL_SHARE

from . import conditions
from .api.status import Artifact, IncidentStatus, RunStatus
from .planned import Event, EventType
from .times import epoch_seconds

_PROBLEMS = (*conditions.WAITING, *conditions.STOPPED)
# The other states are told by the stages, attempts and incidents that lead to them.
_TOLD_STATES = (*_PROBLEMS, *conditions.REACHED, conditions.SUSPENDED)


def story(status: RunStatus) -> tuple[Event, ...]:
    told = (*_stages(status), *_attempts(status), *_incidents(status), *_checkpoints(status))
    told = (*told, *_exclusions(status), *_blocking(status), *_states(status))
    return tuple(sorted(told, key=lambda event: (event.time, event.key)))


def _stages(status: RunStatus) -> Iterator[Event]:
    for entry in status.stages:
        title = entry.stage if entry.name is None else f"{entry.stage} {entry.name}"
        yield Event(
            f"Stage-{entry.stage}-{entry.name}",
            "Normal",
            "StageStarted",
            f"{title} started",
            epoch_seconds(entry.started_at),
        )
    for made in status.artifacts:
        title = made.stage if made.name is None else f"{made.stage} {made.name}"
        yield Event(
            f"Artifact-{made.stage}-{made.name}",
            "Normal",
            "StageFinished",
            f"{title} finished: {made.path}{_mean(made)}",
            epoch_seconds(made.time),
        )
        yield from _older_step(made)


def _mean(made: Artifact) -> str:
    return f", the mean of {', '.join(made.mean_of)}" if made.mean_of else ""


def _older_step(made: Artifact) -> Iterator[Event]:
    """What was exported is not the end of training: later checkpoints were damaged."""
    missing = made.metrics.get("stepsMissing", 0)
    if missing:
        yield Event(
            f"Older-{made.stage}-{made.name}",
            "Warning",
            "CheckpointQuarantined",
            f"{made.stage} took the checkpoint of step {made.step}, {missing:g} steps before the"
            " end: newer ones were damaged and moved to quarantine/",
            epoch_seconds(made.time),
        )


def _attempts(status: RunStatus) -> Iterator[Event]:
    """The newest; its predecessors were told when they were."""
    if status.attempt and status.attempt_time is not None:
        yield Event(
            f"Attempt-{status.attempt}",
            "Normal",
            "AttemptStarted",
            f"attempt {status.attempt}",
            epoch_seconds(status.attempt_time),
        )


def _incidents(status: RunStatus) -> Iterator[Event]:
    for incident in status.incidents:
        key = f"{incident.attempt}-{incident.round}-{incident.time}"
        time = epoch_seconds(incident.time)
        kind: EventType = "Normal" if incident.budget == "None" else "Warning"
        text = f"{incident.fault_class}: {incident.cause}; {incident.level}"
        yield Event(f"Incident-{key}", kind, incident.fault_class, text, time)
        if incident.level == "Shrink":
            waited = (incident.detect_seconds or 0.0) + (incident.reschedule_seconds or 0.0)
            text = f"no replacement within {waited:.0f} s; goes on with {incident.nodes} nodes"
            yield Event(f"Shrink-{key}", "Warning", "Shrunk", text, time + waited)
        if incident.first_step_seconds is not None:
            text = f"steps again {_seconds(incident):.1f} s after {incident.fault_class}"
            lost = f", {incident.steps_lost} steps lost" if incident.steps_lost is not None else ""
            ended = time + _seconds(incident)
            yield Event(f"Recovery-{key}", "Normal", "Recovered", text + lost, ended)


def _seconds(incident: IncidentStatus) -> float:
    phases = (
        incident.detect_seconds,
        incident.reschedule_seconds,
        incident.restore_seconds,
        incident.first_step_seconds,
    )
    return sum(phase for phase in phases if phase is not None)


def _checkpoints(status: RunStatus) -> Iterator[Event]:
    for entry in status.checkpoints.quarantined:
        text = f"checkpoint of step {entry.step} was moved to {entry.path}: {entry.reason}"
        time = epoch_seconds(entry.time)
        yield Event(
            f"Quarantine-{entry.step}-{entry.time}", "Warning", "CheckpointQuarantined", text, time
        )


def _exclusions(status: RunStatus) -> Iterator[Event]:
    for entry in status.excluded_nodes:
        whom = "all runs" if entry.scope == "AllRuns" else "this run"
        text = f"node {entry.name} is excluded from {whom} until {entry.until}: {entry.reason}"
        key = f"Excluded-{entry.name}-{entry.since}-{entry.scope}"
        yield Event(key, "Warning", "NodeExcluded", text, epoch_seconds(entry.since))


def _blocking(status: RunStatus) -> Iterator[Event]:
    if (found := status.checkpoints.blocking) is not None:
        text = (
            f"at step {found.step} saves stall training for {found.stall_share:.1%} of the time"
            f" between them, over {MAX_STALL_SHARE:.0%}; set spec.checkpoint.interval, or with auto"
            f" maxInterval, to {found.enough_steps} steps or more"
        )
        key = f"Blocking-{found.time}"
        yield Event(key, "Warning", "CheckpointsBlock", text, epoch_seconds(found.time))


def _states(status: RunStatus) -> Iterator[Event]:
    summary = conditions.condition(status, conditions.SUCCEEDED)
    if summary is None or summary.reason not in _TOLD_STATES or status.state_since is None:
        return
    kind: EventType = "Warning" if summary.reason in _PROBLEMS else "Normal"
    key = f"State-{summary.reason}-{status.state_since}"
    time = epoch_seconds(status.state_since)
    yield Event(key, kind, summary.reason, summary.message, time)
