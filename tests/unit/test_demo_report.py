"""What the demo's report takes from a finished run, and which promises it finds broken."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hack.demo import report

RUN: dict[str, Any] = {
    "metadata": {"name": "demo"},
    "status": {
        "stages": [
            {
                "stage": "Data",
                "startedAt": "2026-01-01T00:00:00Z",
                "finishedAt": "2026-01-01T00:00:30Z",
            },
            {
                "stage": "PostTraining",
                "name": "sft",
                "startedAt": "2026-01-01T00:02:00Z",
                "finishedAt": "2026-01-01T00:02:25Z",
            },
            {"stage": "Serving", "startedAt": "2026-01-01T00:02:25Z"},
        ],
        "training": {
            "step": 240,
            "tokens": 983040,
            "initialLoss": 8.4,
            "loss": 5.0,
            "replayedSteps": 7,
            "replayedMaxLossDifference": 0.0,
        },
        "artifacts": [
            {"stage": "Export", "metrics": {"bitsPerByteHeldOut": 2.5, "logitsMaxAbsDiff": 1e-6}}
        ],
        "incidents": [
            {
                "class": "WorkerKilled",
                "cause": "rank 1 was killed by SIGKILL",
                "level": "WorkerRestart",
                "detectSeconds": 0.1,
                "rescheduleSeconds": 0.2,
                "restoreSeconds": 1.5,
                "firstStepSeconds": 0.5,
                "stepsLost": 7,
            }
        ],
    },
}


def made(run: dict[str, Any], answer: str = "A sequence.") -> dict[str, Any]:
    return report.report(
        run,
        chat={"question": "What is a list?", "answer": answer},
        operator_rss_bytes=90_000_000,
        seconds_total=300.0,
    )


def test_report_of_a_whole_run_keeps_every_promise() -> None:
    document = made(RUN)
    assert report.shortcomings(document) == []
    assert document["stages"] == {"Data": 30.0, "sft": 25.0}
    assert "| WorkerKilled | WorkerRestart | 0.10 | 0.20 | 1.50 | 0.50 | 7 |" in report.markdown(
        document
    )


@pytest.mark.parametrize(
    ("path", "value", "promise"),
    [
        (("training", "loss"), 7.0, "the loss falls below 0.75 of its start"),
        (("incidents",), [], "at least one incident with its four durations"),
        (("training", "replayedMaxLossDifference"), 1e-3, "steps run twice have equal losses"),
        (("training", "replayedSteps"), 0, "steps run twice have equal losses"),
        (
            ("artifacts", 0, "metrics", "logitsMaxAbsDiff"),
            1e-3,
            "export logits within 1e-4",
        ),
    ],
)
def test_report_of_a_broken_promise_names_it(
    path: tuple[str | int, ...], value: Any, promise: str
) -> None:
    run = copy.deepcopy(RUN)
    target: Any = run["status"]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    assert report.shortcomings(made(run)) == [promise]


def test_report_without_an_answer_says_so() -> None:
    assert report.shortcomings(made(RUN, answer=" ")) == ["an answer"]
