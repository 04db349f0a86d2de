"""Children that the API server refused become a condition, and go from it again."""

from __future__ import annotations

from pretrain_operator.api.status import Condition, RunStatus
from pretrain_operator.observed import ObjectKey
from pretrain_operator.refusals import RETRY_SECONDS, Refusal, is_pointless, with_refusals

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
