"""Incidents, budgets and attempts: whether a run that was hit goes on, and how. Pure.

Rounds inside an attempt are the coordinator's business; here each of its incidents is classed and
charged once, and the verdict is: go on, a new attempt, or stop.

    no attempt ──► attempt 1 ──► … the Job fails, or what it is made from is edited ──► attempt n+1
                       └──► Stop: a fault that a retry cannot cure, a budget spent, no progress
    stopped ── a change of the spec ──► retries + 1, budgets anew ──► attempt n+1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.status import STALLED, Incident, StatusDocument

from . import conditions, evidence, faults, pod_facts, record
from .api.status import Budgets, IncidentStatus, RunStatus, Suspect
from .case import Case
from .faults import Evidence, Fault
from .manifests.inputs import training_digest
from .manifests.training import COMPONENT
from .observed import KubernetesObject, Run
from .stages import Stop, current
from .times import timestamp

BARREN_INCIDENTS = 3  # in a row without a step between them
START_FAILURES = 3  # of one slot's pods, none of which joined a round
STACKS_SECONDS = 5.0  # that agents have to say where a stalled round's workers stood


@dataclass(frozen=True)
class Judged:
    """A status, and the verdict on it."""

    status: RunStatus
    stop: Stop | None = None


def reopened(run: Run, now: float) -> RunStatus:
    """A stop is left by a change of the spec: everything that led to it counts no more."""
    status = run.status
    summary = conditions.condition(status, conditions.SUCCEEDED)
    if not conditions.is_stopped(status) or summary is None:
        return status
    if summary.observed_generation >= run.generation:
        return status
    fresh = status.model_copy(
        update={
            "retries": status.retries + 1,
            "budgets": Budgets(step=status.budgets.step, total=status.budgets.total),
        }
    )
    message = "the spec was changed; the run goes on"
    return conditions.with_state(
        fresh, conditions.PENDING, message, generation=run.generation, now=now
    )


# Incidents that the coordinator tells of


def with_incidents(case: Case, status: RunStatus) -> Judged:
    """With each of the coordinator's incidents charged once, and kept up to date."""
    document = case.document(status)
    if document is None:
        return Judged(status)
    judged = Judged(record.heard(status, document))
    known_round = judged.status.last_incident_round
    for incident, fault in _faults(case, document):
        if incident.round > known_round:
            judged = _charged(case, judged, incident, fault)
        else:
            judged = _refreshed(judged, incident, fault)
    return Judged(_progressed(judged.status, _step(document)), judged.stop)


def _faults(case: Case, document: StatusDocument) -> Iterator[tuple[Incident, Fault]]:
    for index, incident in enumerate(document.incidents):
        if _is_being_told(incident, document):
            return
        earlier = document.incidents[:index]
        yield incident, faults.fault(evidence.of_incident(case, incident, earlier))


def _is_being_told(incident: Incident, document: StatusDocument) -> bool:
    """Agents of a stalled round say where their workers stood before the next round is formed: a
    suspect is named once, and not from the stacks of the fastest agents alone.
    """
    is_open = document.broken and document.round == incident.round
    told_by = incident.time + (incident.detect_seconds or 0.0) + STACKS_SECONDS
    return incident.evidence == STALLED and is_open and document.time < told_by


def _charged(case: Case, judged: Judged, incident: Incident, fault: Fault) -> Judged:
    entry = _entry(judged.status.attempt, incident, fault)
    status = _progressed(judged.status, incident.last_step)
    after = _appended(status, entry, incident.last_step).model_copy(
        update={"last_incident_round": incident.round}
    )
    return Judged(after, judged.stop or _verdict(case, after, fault))


def _refreshed(judged: Judged, incident: Incident, fault: Fault) -> Judged:
    """Durations come in while it recovers; so may the pod's or node's side of the cause."""
    status = judged.status
    index = _index(status, incident)
    if index is None:
        return judged
    old = status.incidents[index]
    new = _entry(old.attempt, incident, fault)
    new = new.model_copy(update={"settled": old.settled})
    is_known = new.fault_class == old.fault_class
    if old.settled or is_known or faults.outlasts(old.fault_class, new.fault_class):
        new = new.model_copy(update={"fault_class": old.fault_class, "cause": old.cause})
        level = _level(old.level, incident)
        new = new.model_copy(update={"budget": old.budget, "level": level})
    incidents = (*status.incidents[:index], new, *status.incidents[index + 1 :])
    budgets = _shifted(status.budgets, old.budget, new.budget)
    after = status.model_copy(update={"incidents": incidents, "budgets": budgets})
    is_new_stop = new.level == "Stop" and old.level != "Stop"
    return Judged(after, judged.stop or (_stop(fault) if is_new_stop else None))


def _entry(attempt: int, incident: Incident, fault: Fault) -> IncidentStatus:
    return IncidentStatus(
        attempt=attempt,
        round=incident.round,
        time=timestamp(incident.time),
        fault_class=fault.row.name,
        cause=fault.cause[:_MAX_CAUSE],
        budget=fault.row.budget,
        level=_level(fault.row.level, incident),
        nodes=incident.next_nodes,
        suspect=Suspect(rank=fault.evidence.rank, pod=fault.evidence.pod, node=fault.evidence.node),
        echoes=incident.echoes,
        detect_seconds=incident.detect_seconds,
        reschedule_seconds=incident.reschedule_seconds,
        restore_seconds=incident.restore_seconds,
        first_step_seconds=incident.first_step_seconds,
        steps_lost=incident.steps_lost,
        restored_from=incident.restored_from,
    )


def _level(cure: faults.Level, incident: Incident) -> faults.Level:
    """What was needed in the end: nobody took the place of what was lost."""
    return "Shrink" if incident.has_shrunk and cure != "Stop" else cure


_MAX_CAUSE = 1000  # characters; 20 incidents must fit an object


def _index(status: RunStatus, incident: Incident) -> int | None:
    key = (status.attempt, incident.round)
    matches = (i for i, item in enumerate(status.incidents) if (item.attempt, item.round) == key)
    return max(matches, default=None)


# Budgets


def _progressed(status: RunStatus, step: int) -> RunStatus:
    """A step past every fault counted so far resets the counts."""
    budgets = status.budgets
    if step <= budgets.step or not (budgets.infrastructure or budgets.application):
        return status
    fresh = budgets.model_copy(update={"infrastructure": 0, "application": 0})
    return status.model_copy(update={"budgets": fresh})


def _appended(status: RunStatus, entry: IncidentStatus, step: int) -> RunStatus:
    budgets = _shifted(status.budgets, "None", entry.budget)
    budgets = budgets.model_copy(
        update={
            "step": max(budgets.step, step),
            "total": budgets.total + (entry.budget != "None"),
        }
    )
    return record.with_incident(status, entry).model_copy(update={"budgets": budgets})


def _shifted(budgets: Budgets, old: faults.Budget, new: faults.Budget) -> Budgets:
    """One charge moved from one budget to another."""
    change = {"Infrastructure": "infrastructure", "Application": "application"}
    counts = budgets.model_dump()
    if old in change:
        counts[change[old]] = max(0, counts[change[old]] - 1)
    if new in change:
        counts[change[new]] += 1
    return Budgets(**counts)


def _verdict(case: Case, status: RunStatus, fault: Fault) -> Stop | None:
    if fault.row.level == "Stop":
        return _stop(fault)
    recovery, budgets = case.spec.recovery, status.budgets
    spent = {
        "maxInfrastructureFaults": (budgets.infrastructure, recovery.max_infrastructure_faults),
        "maxApplicationFaults": (budgets.application, recovery.max_application_faults),
    }
    for field, (count, limit) in spent.items():
        if count > limit:
            message = (
                f"{count} faults without progress between them exceed spec.recovery.{field}"
                f" {limit}; the last: {fault.cause}. Remove the cause, then raise the field or"
                " change the spec otherwise to go on."
            )
            return Stop(conditions.FAULT_BUDGET_SPENT, message)
    is_fresh = budgets.infrastructure + budgets.application < BARREN_INCIDENTS  # progress resets
    if _is_barren(status) and not is_fresh:
        message = (
            f"{BARREN_INCIDENTS} faults in a row without a step between them; the last:"
            f" {fault.cause}. Remove the cause, then change the spec to go on."
        )
        return Stop(conditions.NO_PROGRESS, message)
    return None


def _stop(fault: Fault) -> Stop:
    return Stop(fault.row.state, f"{fault.cause}. {fault.row.remedy}".strip())


def _is_barren(status: RunStatus) -> bool:
    """No step was made since the third-newest incident of this attempt that was charged.

    Uncharged ones in between count as recoveries: a drain that cuts one short gets its first step.
    """
    incidents = [item for item in status.incidents if item.attempt == status.attempt]
    charged = [at for at, item in enumerate(incidents) if item.budget != "None"]
    if len(charged) < BARREN_INCIDENTS:
        return False
    since = incidents[charged[-BARREN_INCIDENTS] : -1]
    return all(item.first_step_seconds is None for item in since)


def _step(document: StatusDocument) -> int:
    """Reached since the last incident; 0 while the run recovers."""
    if document.broken or document.progress is None:
        return 0
    is_open = bool(document.incidents) and document.incidents[-1].first_step_seconds is None
    return 0 if is_open else document.progress.step


# Attempts


def with_attempt(case: Case, status: RunStatus, *, must_move: bool = False) -> RunStatus:
    """With the first attempt, or the next: what it is made from was edited, or it must leave a
    node.
    """
    stage = current(case.spec, status)
    if stage is None or stage.kind != "Training" or case.spec.suspend:
        return status
    inputs = training_digest(case.spec, status.retries)
    is_current = status.config_digest == inputs and not must_move
    return status if is_current else _next_attempt(case, status, inputs)


def with_job_failures(case: Case, status: RunStatus) -> Judged:
    """Failures that the coordinator cannot see: of the Job, and of pods that never join a round."""
    stage = current(case.spec, status)
    job = case.training_job(status)
    if stage is None or stage.kind != "Training" or job is None or case.spec.suspend:
        return Judged(status)
    if pod_facts.holds(job, "Failed"):
        return _job_failed(case, status, job)
    return Judged(status, _start_failure(case, status))


def _job_failed(case: Case, status: RunStatus, job: KubernetesObject) -> Judged:
    for pod in _failed_pods(case, status):
        fault = faults.fault(evidence.of_pod(pod, None))
        if fault.evidence.exit_code in exit_codes.FINAL:
            return Judged(status, _stop(fault))
    found = pod_facts.condition(job, "Failed") or {}
    fault = faults.fault(Evidence(kind=faults.JOB_FAILED, message=found.get("message")))
    incident = Incident(round=0, time=case.now, evidence=faults.JOB_FAILED)
    last_step = status.training.step if status.training else 0
    charged = _appended(status, _entry(status.attempt, incident, fault), last_step)
    stop = _verdict(case, charged, fault)
    if stop is not None:
        return Judged(charged, stop)
    return Judged(_next_attempt(case, charged, status.config_digest or ""))


def _start_failure(case: Case, status: RunStatus) -> Stop | None:
    """While there is no round, the pods themselves tell whether starting is hopeless."""
    failures: dict[str | None, list[Fault]] = {}
    had_round = status.coordinator_started_at is not None
    for pod in _pods_that_never_joined(case, status):
        fault = faults.fault(evidence.of_pod(pod, None if had_round else 0))
        if fault.row.level == "Stop":
            return _stop(fault)
        if fault.row.budget == "Application":
            failures.setdefault(pod_facts.slot(pod), []).append(fault)
    for slot, slot_failures in failures.items():
        if len(slot_failures) >= START_FAILURES:
            message = (
                f"slot {slot} failed {len(slot_failures)} times before it joined a round; the last:"
                f" {slot_failures[-1].cause}. Remove the cause, then change the spec to go on."
            )
            return Stop(conditions.NO_PROGRESS, message)
    return None


def _pods_that_never_joined(case: Case, status: RunStatus) -> list[KubernetesObject]:
    """Failed pods that the next round waits for, in the order of their ends.

     round formed       last step    broken
    ─────┴──────────────────┴───────────┴──────────────────►
      member ─────────────────────────✗   an incident: the coordinator tells of it
               spare ✗                    old: the round did without
                                           new pod ✗   new pod ✗   never joined: counted
    """
    failed = _failed_pods(case, status)
    if status.coordinator_started_at is None:
        return failed
    document = case.document(status)
    if document is None or not document.broken or document.finished:
        return []  # silence is no failure, and a round that runs does without them
    formed_at = document.round_formed_at or document.started_at
    stepped_at = document.progress.time if document.progress else formed_at
    return [
        pod
        for pod in failed
        if pod_facts.created_at(pod) > formed_at and pod_facts.ended_at(pod) > stepped_at
    ]


def _failed_pods(case: Case, status: RunStatus) -> list[KubernetesObject]:
    """In the order of their ends."""
    pods = case.pods(COMPONENT, status.attempt)
    failed = (pod for pod in pods if pod_facts.phase(pod) == "Failed")
    return sorted(failed, key=pod_facts.ended_at)


def _next_attempt(case: Case, status: RunStatus, inputs: str) -> RunStatus:
    return status.model_copy(
        update={
            "attempt": status.attempt + 1,
            "attempt_time": timestamp(case.now),
            "config_digest": inputs,
            "last_incident_round": 0,
            "coordinator_started_at": None,
        }
    )
