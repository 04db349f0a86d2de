"""Where the time of a run went, from its admission until it is trained. Pure.

The account in the status says up to when time is booked, and what goes on since then (its
activity). A pass books what it can tell apart: all of it from the committed status and what is
observed, so a pass that is lost, or made twice, books nothing twice. Never asks a clock.

    Preparing ─► Starting ─► Stepping ◄─► Recovery        Stepping is booked up to the last step
        ▲           ▲           │                         that is known, and split: productive,
        └─ Queued ──┴─ Suspended, Stopped                 LostSteps, CheckpointStall
                                └─► Finished              what lies behind the last: Finishing

docs/goodput.md defines each cause; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from pretrain_llm.contract.status import Incident, StatusDocument

from . import conditions, stages
from .api.status import Activity, BadputCause, RunStatus, TimeAccount, TrainingStatus
from .case import Case
from .stages import Stage
from .times import epoch_seconds, micro_timestamp

CAUSES: tuple[BadputCause, ...] = get_args(BadputCause)

# Left only by a pass of the operator, so that they last until one sees them end.
_OWN: tuple[Activity, ...] = ("Preparing", "Suspended", "Stopped")
# Certain to last until now, whatever a coordinator will say later.
_LASTING: tuple[Activity, ...] = (*_OWN, "Queued")


@dataclass(frozen=True)
class Pause:
    """From when to when an attempt did not step. Its first step again belongs to it."""

    start: float
    end: float  # math.inf: not over
    step_before: int
    step_after: int  # the first step again


@dataclass(frozen=True)
class Span:
    """Time to be booked; steps only where it is Stepping."""

    start: float
    end: float
    cause: Activity | BadputCause
    first_step: int = 0  # finished before it starts
    last_step: int = 0

    @property
    def seconds(self) -> float:
        return self.end - self.start


def with_account(case: Case, status: RunStatus) -> RunStatus:
    """With the time booked that has passed since the status that was committed last."""
    training = status.training or TrainingStatus()
    account = training.account
    activity = _activity(case, status, account)
    if account is None:
        return status if activity == "Finished" else _opened(case, status, training, activity)
    if account.activity == "Finished":
        return status
    spans = _spans(case, status, account, activity)
    booked = _booked(training, account, spans, case.document(case.run.status), activity)
    return status.model_copy(update={"training": booked})


def current(status: RunStatus, now: float) -> TrainingStatus | None:
    """The figures with what has passed since they were written, where that is certain: waiting
    alone is not worth a write.
    """
    training = status.training
    if training is None or training.account is None:
        return training
    account = training.account
    until = epoch_seconds(account.until)
    if account.activity not in _LASTING or now <= until:
        return training
    return _with_seconds(training, 0.0, {str(account.activity): now - until})


def _opened(
    case: Case, status: RunStatus, training: TrainingStatus, activity: Activity
) -> RunStatus:
    """The run is admitted."""
    account = TimeAccount(activity=activity, until=micro_timestamp(_milli(case.now)))
    return status.model_copy(update={"training": training.model_copy(update={"account": account})})


# What goes on now


def _activity(case: Case, status: RunStatus, account: TimeAccount | None) -> Activity:
    if stages.artifact(status, Stage("Training")) is not None:
        return "Finished"
    if conditions.is_stopped(status):
        return "Stopped"
    if case.spec.suspend:
        return "Suspended"
    if status.attempt == 0 or account is None:
        return "Queued" if _is_queued(case, status) else "Preparing"
    if status.attempt != case.run.status.attempt:
        return "Starting"
    return _in_attempt(case, status, account)


def _in_attempt(case: Case, status: RunStatus, account: TimeAccount) -> Activity:
    document = case.document(status)
    known = account.activity
    if document is not None and _is_stepping(document, account):
        return "Stepping"
    has_pause = document is not None and bool(_pauses(document, account, case.now))
    if known == "Stepping" and not has_pause:
        return "Stepping"  # nobody says otherwise
    is_waiting = document is None or document.broken
    if is_waiting and _is_queued(case, status):
        return "Queued"
    if known == "Queued":
        return "Recovery" if document is not None and _has_stepped(document) else "Starting"
    return "Recovery" if known in ("Stepping", "Recovery") else "Starting"


def _is_stepping(document: StatusDocument, account: TimeAccount) -> bool:
    """A coordinator that came later must have heard of a step itself."""
    if document.broken or document.progress is None:
        return False
    is_open = bool(document.incidents) and document.incidents[-1].first_step_seconds is None
    return not is_open and (document.first_step is not None or account.activity == "Stepping")


def _has_stepped(document: StatusDocument) -> bool:
    return any(incident.last_step for incident in document.incidents)


def _is_queued(case: Case, status: RunStatus) -> bool:
    """No place for a pod, or a queue keeps the Job suspended."""
    if conditions.state(status) == conditions.UNSCHEDULABLE:
        return True
    job = case.training_job(status)
    return job is not None and bool(job.get("spec", {}).get("suspend"))


# What has passed


def _spans(case: Case, status: RunStatus, account: TimeAccount, activity: Activity) -> list[Span]:
    """Without gaps, from where the account ends. All but steps to come reaches until now."""
    document = case.document(case.run.status)
    start, now = epoch_seconds(account.until), case.now
    trained = stages.artifact(status, Stage("Training"))
    if trained is not None:
        now = _end(epoch_seconds(trained.time), start, document, now)
    if account.activity in _OWN:
        spans = [Span(start, max(start, now), account.activity)]
    elif document is not None:
        spans = _told_spans(document, account, start, now, case.now)
    elif account.activity != "Stepping":
        spans = [Span(start, max(start, now), account.activity)]
    elif trained is not None:
        spans = [Span(start, now, "Stepping", account.step, trained.step or account.step)]
    else:
        spans = []
    end = spans[-1].end if spans else start
    if activity != "Stepping" and now > end:
        spans.append(Span(end, now, "Finishing" if activity == "Finished" else activity))
    return spans


def _end(trained: float, start: float, document: StatusDocument | None, now: float) -> float:
    """Of the account: the Job's end, which is in whole seconds, but not before the last step."""
    last = document.progress if document is not None else None
    step_time = last.time + _offset_seconds(document, now) if last and document else start
    return min(now, max(trained, start, step_time))


def _told_spans(
    document: StatusDocument, account: TimeAccount, start: float, now: float, seen_at: float
) -> list[Span]:
    """Pauses, and steps between them."""
    spans: list[Span] = []
    cursor, step, cause = start, account.step, account.activity
    pauses = _pauses(document, account, seen_at)
    for pause in pauses:
        if pause.end <= cursor:
            # Booked until now a moment before its first step was known.
            step = step if account.activity == "Stepping" or spans else pause.step_after
            cause = "Stepping"
            continue
        if pause.start > cursor:
            begin = min(pause.start, now)
            spans.append(Span(cursor, begin, "Stepping", step, max(step, pause.step_before)))
            cursor, cause = begin, "Stepping"
        end = max(cursor, min(pause.end, now))
        # A recovery that waits for a node is queued until a pass sees that it no longer does.
        waits = account.activity == "Queued" and pause.start <= cursor == start
        paused: Activity = "Recovery" if cause == "Stepping" and not waits else account.activity
        spans.append(Span(cursor, end, paused))
        cursor, step = end, pause.step_after
    last = document.progress
    if last is not None and not any(math.isinf(pause.end) for pause in pauses):
        end = min(last.time + _offset_seconds(document, seen_at), now)
        if end > cursor:
            spans.append(Span(cursor, end, "Stepping", step, last.step))
    return spans


def _pauses(document: StatusDocument, account: TimeAccount, now: float) -> list[Pause]:
    """In order of their start, by the operator's clock."""
    offset = _offset_seconds(document, now)
    incidents = document.incidents
    pauses = [
        _pause(incident, incidents[index + 1] if index + 1 < len(incidents) else None, offset)
        for index, incident in enumerate(incidents)
    ]
    if account.activity != "Stepping" or _is_lost_sight(document, account, offset):
        first = document.first_step
        end = math.inf if first is None else first.time + offset
        pauses.append(Pause(-math.inf, end, 0, first.step if first else 0))
    return sorted(pauses, key=lambda pause: pause.start)


def _pause(incident: Incident, following: Incident | None, offset: float) -> Pause:
    """One that the next incident cut short ends with it."""
    start = incident.time + offset
    if incident.first_step_seconds is not None:
        phases = (
            incident.detect_seconds,
            incident.reschedule_seconds,
            incident.restore_seconds,
            incident.first_step_seconds,
        )
        end = start + sum(phase for phase in phases if phase is not None)
    else:
        end = max(start, following.time + offset) if following is not None else math.inf
    resumed = incident.last_step if incident.resumed_step is None else incident.resumed_step
    return Pause(start, end, incident.last_step, resumed + 1)


def _is_lost_sight(document: StatusDocument, account: TimeAccount, offset: float) -> bool:
    """A new coordinator had to form a round of its own: the one before fell with its round."""
    started = document.started_at
    is_new = started + offset > epoch_seconds(account.until)
    formed = document.round_formed_at
    return is_new and formed is not None and formed >= started and not document.incidents


def _offset_seconds(document: StatusDocument, now: float) -> float:
    """From the coordinator's clock to the operator's: the document was made just now."""
    return now - document.time


# Into the account


def _booked(
    training: TrainingStatus,
    account: TimeAccount,
    spans: list[Span],
    document: StatusDocument | None,
    activity: Activity,
) -> TrainingStatus:
    start = epoch_seconds(account.until)
    spans = [replace(span, start=_milli(span.start), end=_milli(span.end)) for span in spans]
    seconds: dict[str, float] = {}
    stepping = productive = 0.0
    highest, step = account.highest_step, account.step
    for span in spans:
        if span.cause != "Stepping":
            seconds[span.cause] = seconds.get(span.cause, 0.0) + span.seconds
            continue
        stepping += span.seconds
        productive += span.seconds * (1.0 - _lost_share(span, highest))
        highest, step = max(highest, span.last_step), span.last_step
    stall, stall_known = _stall(account, document, stepping, activity)
    kept = 1.0 - stall / stepping if stepping else 1.0
    productive = _milli(productive * kept)
    seconds["CheckpointStall"] = _milli(stall)
    seconds["LostSteps"] = stepping - productive - _milli(stall)
    after = TimeAccount(
        activity=activity,
        until=micro_timestamp(spans[-1].end if spans else start),
        step=step,
        highest_step=highest,
        stall_seconds=stall_known,
    )
    booked = _with_seconds(training, productive, seconds)
    return booked.model_copy(update={"account": after})


def _lost_share(span: Span, highest_step: int) -> float:
    """Share of a span's steps that had been made before it, 0 to 1."""
    made = span.last_step - span.first_step
    if made <= 0:  # less than a step
        return float(span.last_step < highest_step)
    lost = min(span.last_step, highest_step) - span.first_step
    return max(0, lost) / made


def _stall(
    account: TimeAccount, document: StatusDocument | None, stepping: float, activity: Activity
) -> tuple[float, float]:
    """What checkpoints took of the steps, and what of the coordinator's count is booked now.

    The count is of one attempt: it begins anew with the next, and with a new coordinator after all
    agents had gone. What does not fit into the steps that are known waits for the next ones.
    """
    if document is None:
        return 0.0, account.stall_seconds if activity in ("Stepping", "Recovery") else 0.0
    stall = min(stepping, max(0.0, document.stall_seconds - account.stall_seconds))
    if activity == "Starting" and account.activity != "Starting":
        return stall, 0.0
    if activity != "Stepping":
        return stall, max(account.stall_seconds, document.stall_seconds)
    return stall, account.stall_seconds + stall


def _with_seconds(
    training: TrainingStatus, productive: float, seconds: Mapping[str, float]
) -> TrainingStatus:
    known = training.badput_seconds
    badput = {
        cause: total
        for cause in CAUSES
        if (total := _milli(known.get(cause, 0.0) + seconds.get(cause, 0.0)))
    }
    total_productive = _milli(training.productive_seconds + productive)
    wall = total_productive + sum(badput.values())
    return training.model_copy(
        update={
            "goodput": round(total_productive / wall, 4) if wall else None,
            "productive_seconds": total_productive,
            "badput_seconds": badput,
        }
    )


def _milli(seconds: float) -> float:
    """To the millisecond, so that sums stay equal to the time that passed."""
    return round(seconds, 3)
