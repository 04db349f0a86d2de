"""What `pretrain status` shows, from status objects alone."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from pretrain_operator.cli import commands
from pretrain_operator.cli.render import amount, duration, json_view, view

NOW = 1_767_265_200.0  # 2026-01-01T11:00:00Z


def shown(run: dict[str, Any]) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(view(run, NOW))
    return captured.get()


def condition(status: str, reason: str, message: str = "", kind: str = "Succeeded") -> Any:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T10:00:00Z",
    }


def run(**status: Any) -> dict[str, Any]:
    spec = {"postTraining": [{"name": "sft"}], "serving": {}}
    return {"metadata": {"name": "demo", "namespace": "llm"}, "spec": spec, "status": status}


TRAINING = run(
    conditions=[condition("Unknown", "Training")],
    attempt=2,
    stages=[
        {
            "stage": "Data",
            "startedAt": "2026-01-01T10:50:00Z",
            "finishedAt": "2026-01-01T10:51:05Z",
        },
        {"stage": "Training", "startedAt": "2026-01-01T10:51:05Z"},
    ],
    artifacts=[{"stage": "Data", "path": "/w", "time": "2026-01-01T10:51:05Z"}],
    training={
        "step": 60,
        "totalSteps": 240,
        "tokens": 245760,
        "loss": 4.1234,
        "tokensPerSecond": 8123.4,
        "nodes": 2,
        "wantedNodes": 3,
    },
    checkpoints={"latest": {"step": 40, "path": "/c", "time": "2026-01-01T10:59:00Z"}},
    budgets={"total": 1},
    incidents=[
        {
            "attempt": 1,
            "round": 3,
            "time": "2026-01-01T10:55:10Z",
            "class": "WorkerKilled",
            "cause": "rank 1 was killed by signal 9",
            "budget": "Infrastructure",
            "level": "WorkerRestart",
            "suspect": {"rank": 1, "pod": "demo-train-1-1", "node": "node-2"},
            "detectSeconds": 0.1,
            "rescheduleSeconds": 0.4,
            "restoreSeconds": 3.25,
            "firstStepSeconds": 12.0,
            "stepsLost": 7,
        }
    ],
)


def test_view_of_a_training_run_shows_stages_progress_and_incidents() -> None:
    text = shown(TRAINING)
    for expected in (
        "demo in llm   Training   attempt 2",
        "✓  Data              1m 05s",
        "▸  Training          8m 55s",
        "·  PostTraining sft",
        "step 60/240",
        "25%",
        "loss 4.1234   tokens 245.8k   tokens/s 8,123   nodes 2/3",
        "restarts 1   checkpoint step 40, 1m 00s ago",
        "10:55:10 WorkerKilled",
        "10:55:10 rank 1 was killed by signal 9",
        "0.1s",
        "0.4s",
        "3.2s",
        "12s",
    ):
        assert expected in text


def test_view_of_a_failed_run_says_why_once() -> None:
    message = "training.optimizer: out of memory at step 1. Lower localBatchSize."
    failed = run(
        conditions=[
            condition("False", "OutOfMemory", message),
            condition("False", "OutOfMemory", message, kind="Trained"),
        ]
    )
    assert shown(failed).count(message) == 1


def test_view_of_a_waiting_run_says_what_it_waits_for() -> None:
    waiting = run(conditions=[condition("Unknown", "StorageNotFound", "make the claim 'demo'")])
    assert "StorageNotFound: make the claim 'demo'" in shown(waiting)


def test_view_of_a_served_run_shows_its_url_and_no_complaint() -> None:
    served = run(
        conditions=[condition("True", "Serving", "The model is served.")],
        serving={"url": "http://demo-serve.llm.svc:8000/v1", "model": "demo", "readyReplicas": 1},
    )
    text = shown(served)
    assert "serving http://demo-serve.llm.svc:8000/v1 (1 ready)" in text
    assert "The model is served." not in text


def test_view_of_a_run_without_status_is_pending() -> None:
    assert "Pending" in shown({"metadata": {"name": "demo", "namespace": "llm"}})


def test_json_view_has_the_state_and_the_status_as_it_is() -> None:
    document = json_view(TRAINING)
    assert document["state"] == "Training"
    assert document["status"]["training"]["step"] == 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.14, "0.1s"),
        (59.4, "59s"),
        (65, "1m 05s"),
        (7380, "2h 03m"),
        (371_000, "4d 07h"),
    ],
)
def test_duration_keeps_two_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "–"), (8123.4, "8,123"), (12_345, "12.3k"), (2.2e10, "22.0B")]
)
def test_amount_of_many_is_short(number: float | None, text: str) -> None:
    assert amount(number) == text


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat", "demo", "What is a list?", "-n", "llm"],
        ["chat", "demo", "-n", "llm", "What is a list?"],
    ],
)
def test_chat_question_is_found_before_and_after_the_options(arguments: list[str]) -> None:
    options = commands._parsed(arguments)
    assert (options.run, options.namespace) == ("demo", "llm")
    assert options.question == "What is a list?"


def test_view_tells_where_the_time_went_up_to_now():
    account = {"activity": "Suspended", "until": "2026-01-01T10:59:00.000000Z"}
    training = {
        "productiveSeconds": 180.0,
        "goodput": 0.9,
        "badputSeconds": {"Starting": 20.0},
        "account": account,
    }
    text = shown(run(conditions=[condition("Unknown", "Suspended")], training=training))
    assert "goodput 69.2%   Suspended 1m 00s   Starting 20s" in text
