"""Pure: the finished run and what was measured beside it, as report.json and as a page to read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def _seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _stages(status: Mapping[str, Any]) -> dict[str, float]:
    return {
        stage.get("name") or stage["stage"]: _seconds_between(
            stage["startedAt"], stage["finishedAt"]
        )
        for stage in status["stages"]
        if stage.get("finishedAt")
    }


def _metric(status: Mapping[str, Any], stage: str, name: str) -> float:
    found = next(item for item in status["artifacts"] if item["stage"] == stage)
    return float(found["metrics"][name])


def _incidents(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = {
        "class": "class",
        "cause": "cause",
        "level": "level",
        "detectSeconds": "detect_seconds",
        "rescheduleSeconds": "reschedule_seconds",
        "restoreSeconds": "restore_seconds",
        "firstStepSeconds": "first_step_seconds",
        "stepsLost": "steps_lost",
    }
    return [
        {name: incident.get(key) for key, name in names.items()}
        for incident in status.get("incidents", ())
    ]


def report(
    run: Mapping[str, Any],
    *,
    chat: Mapping[str, str],
    operator_rss_bytes: int,
    seconds_total: float,
) -> dict[str, Any]:
    """Raises KeyError or StopIteration where the run did not get to its end."""
    status = run["status"]
    training = status["training"]
    replayed = training.get("replayedSteps", 0)
    return {
        "run": run["metadata"]["name"],
        "stages": _stages(status),
        "training": {
            "steps": training["step"],
            "tokens": training["tokens"],
            "loss_first": training["initialLoss"],
            "loss_last": training["loss"],
            "bits_per_byte_heldout": _metric(status, "Export", "bitsPerByteHeldOut"),
        },
        "incidents": _incidents(status),
        "replayed_steps": replayed,
        "resume_loss_max_abs_diff": training["replayedMaxLossDifference"] if replayed else None,
        "export_logits_max_abs_diff": _metric(status, "Export", "logitsMaxAbsDiff"),
        "chat": dict(chat),
        "operator_rss_bytes": operator_rss_bytes,
        "seconds_total": round(seconds_total, 1),
    }


def shortcomings(document: Mapping[str, Any]) -> list[str]:
    """What the main job promises and this run did not keep; empty when all is well."""
    training = document["training"]
    promises = {
        "the loss falls below 0.75 of its start": (
            training["loss_last"] < 0.75 * training["loss_first"]
        ),
        "at least one incident with its four durations": any(
            all(
                item[f"{phase}_seconds"] is not None
                for phase in ("detect", "reschedule", "restore", "first_step")
            )
            for item in document["incidents"]
        ),
        "steps run twice have equal losses": document["resume_loss_max_abs_diff"] == 0,
        "export logits within 1e-4": document["export_logits_max_abs_diff"] <= 1e-4,
        "an answer": bool(document["chat"]["answer"].strip()),
    }
    return [promise for promise, kept in promises.items() if not kept]


def markdown(document: Mapping[str, Any]) -> str:
    training, chat = document["training"], document["chat"]
    lines = [
        f"# {document['run']}: from text to an answer in {document['seconds_total']:.0f} s",
        "",
        "| stage | seconds |",
        "|---|---|",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in document["stages"].items()),
        "",
        f"Training: {training['steps']} steps, {training['tokens']:,} tokens, loss "
        f"{training['loss_first']:.3f} to {training['loss_last']:.3f}; "
        f"{training['bits_per_byte_heldout']:.3f} bits per byte on held-out text.",
        "",
        "| fault | level | detect s | reschedule s | restore s | first step s | steps lost |",
        "|---|---|---|---|---|---|---|",
        *(_incident_row(item) for item in document["incidents"]),
        "",
        f"Steps run twice: {document['replayed_steps']}, largest difference of their losses "
        f"{document['resume_loss_max_abs_diff']}.",
        f"Logits, trained model against the exported one: at most "
        f"{document['export_logits_max_abs_diff']:.1e} apart.",
        f"Operator: {document['operator_rss_bytes'] / 1e6:.0f} MB resident.",
        "",
        f"> {chat['question']}",
        "",
        chat["answer"],
        "",
    ]
    return "\n".join(lines)


def _incident_row(incident: Mapping[str, Any]) -> str:
    phases = ("detect", "reschedule", "restore", "first_step")
    durations = [incident[f"{phase}_seconds"] for phase in phases]
    shown = [f"{seconds:.2f}" if seconds is not None else "–" for seconds in durations]
    cells = [incident["class"], incident["level"], *shown, str(incident["steps_lost"])]
    return f"| {' | '.join(cells)} |"
