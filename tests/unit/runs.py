"""The demo's run, as the API server would hand it over, and shorthands to change it."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pretrain_operator.api.parse import run_from_object
from pretrain_operator.observed import Run

_DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"


@cache
def _demo_text() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(_DEMO.read_text())
    return loaded


def demo_body(**changes: Any) -> dict[str, Any]:
    """`changes`: path below spec with __ for dots, and the new value; None removes the field."""
    body = copy.deepcopy(_demo_text())
    body["metadata"] |= {
        "uid": "run-uid",
        "generation": 1,
        "creationTimestamp": "2026-09-21T00:00:00Z",
    }
    for path, value in changes.items():
        set_field(body, f"spec.{path.replace('__', '.')}", value)
    return body


def script_body() -> dict[str, Any]:
    """The demo's, with a program in the place of the model and all that follows from it."""
    body = demo_body()
    kept = {name: body["spec"][name] for name in ("storage", "nodes", "checkpoint")}
    body["spec"] = {**kept, "script": {"command": ["python", "train.py"], "steps": 100}}
    return body


def set_field(body: dict[str, Any], path: str, value: Any) -> None:
    """Sets what is at a dotted path; None removes it."""
    *parents, leaf = path.split(".")
    target = body
    for name in parents:
        target = target.setdefault(name, {})
    if value is None:
        target.pop(leaf, None)
    else:
        target[leaf] = value


def demo_run(**changes: Any) -> Run:
    return run_from_object(demo_body(**changes))
