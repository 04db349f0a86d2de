"""Totals over all incidents of a run: what counters count. Pure.

The status lists the newest incidents and sums up the forgotten ones; the totals are both together,
so that they survive the operator and are never counted twice. An incident counts from when it is
settled: until then what its pod and node say may still change its class.
"""

from __future__ import annotations

from collections.abc import Iterable

from pretrain_llm.contract.status import StatusDocument

from . import conditions, stages
from .api.status import MAX_INCIDENTS, IncidentStatus, IncidentTotals, RunStatus
from .stages import Stage
from .times import epoch_seconds, micro_timestamp

PHASES = ("detect", "reschedule", "restore", "first_step")


def heard(status: RunStatus, document: StatusDocument) -> RunStatus:
    """With the coordinator whose rounds are counted.

    A new coordinator goes on with the numbers that its agents tell it, so that a round has one
    number for the whole attempt. Only one that lost all agents too, as a suspension does, begins at
    1 again: its rounds are told by being below those counted, or by being formed after the fault
    of the same number, once, when it has its first round.
    """
    started_at = micro_timestamp(document.started_at)
    if document.round == 0 or status.coordinator_started_at == started_at:
        return status
    counted = 0 if _begins_anew(status, document) else status.last_incident_round
    return status.model_copy(
        update={"coordinator_started_at": started_at, "last_incident_round": counted}
    )


def _begins_anew(status: RunStatus, document: StatusDocument) -> bool:
    if document.round != status.last_incident_round or not status.incidents:
        return document.round < status.last_incident_round
    told_until = epoch_seconds(status.incidents[-1].time) + 1.0  # it has whole seconds
    return document.round_formed_at is not None and document.round_formed_at > told_until


def with_incident(status: RunStatus, entry: IncidentStatus) -> RunStatus:
    """With one more, and those summed up for which there is no room."""
    incidents = (*status.incidents, entry)
    forgotten, kept = incidents[:-MAX_INCIDENTS], incidents[-MAX_INCIDENTS:]
    totals = _summed(status.forgotten_incidents, forgotten)
    return status.model_copy(update={"incidents": kept, "forgotten_incidents": totals})


def with_settled(status: RunStatus) -> RunStatus:
    """Incidents that are over are settled: recovered, followed by another, or the run stands."""
    is_standing = conditions.is_stopped(status) or stages.artifact(status, Stage("Training"))
    last = len(status.incidents) - 1
    incidents = tuple(
        entry
        if entry.settled
        else entry.model_copy(
            update={
                "settled": at < last
                or entry.first_step_seconds is not None
                or entry.attempt < status.attempt
                or bool(is_standing)
            }
        )
        for at, entry in enumerate(status.incidents)
    )
    return status.model_copy(update={"incidents": incidents})


def totals(status: RunStatus) -> IncidentTotals:
    """Of all settled incidents."""
    return _summed(status.forgotten_incidents, (e for e in status.incidents if e.settled))


def _summed(known: IncidentTotals, incidents: Iterable[IncidentStatus]) -> IncidentTotals:
    classes, seconds, lost = dict(known.classes), dict(known.phase_seconds), known.steps_lost
    for entry in incidents:
        classes[entry.fault_class] = classes.get(entry.fault_class, 0) + 1
        for phase in PHASES:
            took = getattr(entry, f"{phase}_seconds") or 0.0
            seconds[phase] = round(seconds.get(phase, 0.0) + took, 3)
        lost += entry.steps_lost or 0
    return IncidentTotals(classes=classes, phase_seconds=seconds, steps_lost=lost)
