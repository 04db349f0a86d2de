"""The decision of a pass: (run, observed, settings) -> Plan. Pure, and never raises for what a user
can write or a cluster can show.

First the next status is folded from what was seen; then children, deletions and events follow from
it. The status is committed before anything is touched, so a crash in between costs nothing.
"""

from __future__ import annotations

from . import (
    children,
    conditions,
    disruptions,
    exclusion,
    goodput,
    lost_pods,
    predecessor,
    progress,
    record,
    restarts,
    stages,
    summary,
)
from .api.status import RunStatus
from .case import Case
from .config import run_config
from .observed import Observed, Run
from .planned import Plan
from .settings import Settings
from .spec_error import SpecError
from .stages import Stop
from .story import story

_LOOK_AGAIN_SECONDS = 15.0  # at what no watch shows: a user's claim


def plan(run: Run, observed: Observed, settings: Settings) -> Plan:
    if run.spec is None:
        return _invalid(run, run.spec_error or "spec: is missing", observed)
    if predecessor.has_left(run, observed):
        return Plan(status=run.status, requeue_after_seconds=predecessor.LOOK_AGAIN_SECONDS)
    try:
        case = Case(run, run.spec, run_config(run), observed)
        status = next_status(case, settings)
        objects = children.wanted(case, status, settings)
    except SpecError as error:
        return _invalid(run, str(error), observed)
    shown = progress.throttled(run.status, status, observed.now, settings.status_interval_seconds)
    deletions = tuple(children.deleted(case, status, objects, settings))
    may_apply = summary.claim_problem(case) is None
    return Plan(
        status=shown,
        apply=tuple(children.applied(case, status, objects)) if may_apply else (),
        create=tuple(children.created(case, status, objects)) if may_apply else (),
        delete=deletions,
        events=story(shown),
        requeue_after_seconds=_requeue_after_seconds(case, shown, status, settings, may_apply),
    )


def next_status(case: Case, settings: Settings) -> RunStatus:
    """The status after everything that was observed."""
    status = restarts.reopened(case.run, case.now)
    if conditions.is_stopped(status):
        return status
    status = stages.with_finished(case, status)
    status = progress.with_progress(case, status)
    given_up = lost_pods.lost_pods(case, status, settings)
    status = disruptions.with_disruptions(case, status, given_up)
    judged = restarts.with_incidents(case, status)
    excluding = exclusion.with_exclusions(case, judged.status, settings.node_exclusion)
    must_move = exclusion.must_move(case, excluding, settings.node_exclusion)
    status = restarts.with_attempt(case, excluding, must_move=must_move and judged.stop is None)
    stop = judged.stop if status.attempt == judged.status.attempt else None
    if stop is None:
        failed = restarts.with_job_failures(case, status)
        status, stop = failed.status, failed.stop or stages.failure(case, failed.status)
    return _shown(case, status, settings, stop)


def _shown(case: Case, status: RunStatus, settings: Settings, stop: Stop | None) -> RunStatus:
    status = summary.with_serving(case, status, settings)
    status = summary.with_conditions(case, status, stop)
    status = goodput.with_account(case, status)
    status = record.with_settled(status)
    return stages.with_times(case, status)


def _invalid(run: Run, message: str, observed: Observed) -> Plan:
    status = restarts.reopened(run, observed.now)
    if not conditions.is_stopped(status):  # that verdict stays until the spec is changed
        status = summary.invalid(status, message, generation=run.generation, now=observed.now)
    return Plan(status=status, events=story(status))


def _requeue_after_seconds(
    case: Case, shown: RunStatus, status: RunStatus, settings: Settings, may_apply: bool
) -> float | None:
    if not may_apply:
        return _LOOK_AGAIN_SECONDS
    if any(lost_pods.on_silent_nodes(case)):
        return settings.poll_interval_seconds
    if shown == case.run.status and progress.is_behind(shown, status):
        return settings.status_interval_seconds  # figures wait to be written
    return None
