"""Refused children and failed passes become conditions, and go from them again."""

from __future__ import annotations

import pytest

from pretrain_operator import conditions
from pretrain_operator.api.status import Condition, RunStatus
from pretrain_operator.cluster import ApiError
from pretrain_operator.observed import ObjectKey
from pretrain_operator.refusals import (
    RETRY_SECONDS,
    Refusal,
    failure,
    is_pointless,
    with_failure,
    with_refusals,
)

from .runs import demo_body
from .simulation import cluster
from .world import Operator, World

JOB = ObjectKey("Job", "demo-train-1")
WHY = "spec.template.spec.volumes[0].name: Required value."
REFUSALS = {JOB: Refusal(WHY, "d1", 100.0)}


def status(summary: str, reason: str) -> RunStatus:
    return RunStatus(
        conditions=(
            Condition(
                type="Succeeded",
                status=summary,  # type: ignore[arg-type]
                reason=reason,
                last_transition_time="2026-01-01T00:00:00Z",
            ),
        )
    )


def reasons(found: RunStatus) -> dict[str, str]:
    return {condition.type: condition.reason for condition in found.conditions}


def told(before: RunStatus, refusals: dict[ObjectKey, Refusal], now: float) -> RunStatus:
    return with_refusals(before, refusals, generation=1, now=now)


def test_nothing_refused_leaves_the_status_alone() -> None:
    before = status("Unknown", "Starting")
    assert told(before, {}, 100.0) is before


def test_refused_child_is_told_with_the_servers_words_and_what_to_do() -> None:
    found = told(status("Unknown", "Starting"), REFUSALS, 100.0)
    assert reasons(found) == {"Succeeded": "Starting", "ChildrenAccepted": "ChildRefused"}
    message = found.conditions[-1].message
    assert "Job demo-train-1" in message
    assert WHY in message
    assert "Correct the field" in message


def test_refusal_told_again_changes_nothing() -> None:
    once = told(status("Unknown", "Starting"), REFUSALS, 100.0)
    assert told(once, REFUSALS, 999.0) == once


def test_accepted_child_turns_the_condition_true_once() -> None:
    refused = told(status("Unknown", "Starting"), REFUSALS, 100.0)
    accepted = told(refused, {}, 200.0)
    assert {c.type: c.status for c in accepted.conditions}["ChildrenAccepted"] == "True"
    assert told(accepted, {}, 300.0) == accepted


def test_same_object_is_not_tried_again_at_once_but_a_changed_one_is() -> None:
    refusal = REFUSALS[JOB]
    assert is_pointless(refusal, "d1", 101.0)
    assert not is_pointless(refusal, "d2", 101.0)
    assert not is_pointless(refusal, "d1", 100.0 + RETRY_SECONDS)


def test_status_of_a_run_whose_passes_never_failed_has_no_condition_of_it() -> None:
    before = status("Unknown", "Starting")
    assert with_failure(before, None, generation=1, now=100.0) is before


def test_failed_pass_is_told_with_the_error_and_taken_back() -> None:
    told_of = failure(ApiError(500, "InternalError", "etcdserver: no leader"))
    found = with_failure(status("Unknown", "Starting"), told_of, generation=1, now=100.0)
    assert reasons(found)["Reconciled"] == "PassFailed"
    assert "etcdserver: no leader" in found.conditions[-1].message
    healed = with_failure(found, None, generation=1, now=101.0)
    assert reasons(healed)["Reconciled"] == "PassFinished"


def test_pass_that_fails_halfway_is_told_in_the_status_and_taken_back_by_the_next() -> None:
    world = cluster(World(demo_body())).world
    errors = [None, ApiError(500, "InternalError", "etcdserver: no leader")]

    def fail_second_write() -> None:
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error

    operator = Operator(world, before_write=fail_second_write)
    with pytest.raises(ApiError):
        operator.settle()
    assert reasons(world.status)["Reconciled"] == "PassFailed"
    operator.settle()
    assert reasons(world.status)["Reconciled"] == "PassFinished"


def test_pass_that_gets_no_answer_is_not_told() -> None:
    world = cluster(World(demo_body())).world

    def no_answer() -> None:
        raise ApiError(0, "NoAnswer", "timed out")

    operator = Operator(world, before_write=no_answer)
    with pytest.raises(ApiError):
        operator.settle()
    assert conditions.condition(world.status, "Reconciled") is None
