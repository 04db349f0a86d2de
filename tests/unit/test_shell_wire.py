"""Forms that only the API server sees."""

from __future__ import annotations

from pretrain_operator.api.status import RunStatus, TrainingStatus
from pretrain_operator.observed import Run
from pretrain_operator.planned import Event
from pretrain_operator.wire import event_object, lost_pod, status_object


def run(uid: str = "u1") -> Run:
    return Run("demo", "llm", uid, 1, None, None, RunStatus())


def event(key: str = "Incident-1-4", message: str = "told") -> Event:
    return Event(key, "Warning", "WorkerKilled", message, 1_800_000_000.0)


def test_status_object_has_camel_case_and_no_nulls() -> None:
    written = status_object(RunStatus(training=TrainingStatus(step=4, tokens_per_second=2.5)))
    assert written["training"]["tokensPerSecond"] == 2.5
    assert "loss" not in written["training"]
    assert "serving" not in written


def test_event_name_depends_on_run_and_key_only() -> None:
    first = event_object(run(), event())["metadata"]["name"]
    assert event_object(run(), event(message="other words"))["metadata"]["name"] == first
    assert event_object(run(), event(key="Incident-1-5"))["metadata"]["name"] != first
    assert event_object(run(uid="u2"), event())["metadata"]["name"] != first


def test_lost_pod_has_failed_by_a_disruption_and_is_this_very_pod() -> None:
    body = lost_pod("llm", "demo-train-1-0", "u9", 0.0)
    assert body["metadata"]["uid"] == "u9"
    assert body["status"]["phase"] == "Failed"
    (condition,) = body["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("DisruptionTarget", "True")


def test_event_message_is_cut_to_what_the_server_takes() -> None:
    assert len(event_object(run(), event(message="x" * 5000))["message"]) == 1024
