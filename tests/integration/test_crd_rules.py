"""Every rule of the CRD on a real API server: what breaks it is refused with a message that names
the value and the remedy, its neighbour is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import ControlPlane
from tests.unit.rule_rows import EDITS, ROWS, Edit, Row
from tests.unit.runs import demo_body, set_field

from . import crd_client
from .crd_client import RunClient

NAMESPACE = "crd-rules"
STARTED = {
    "attempt": 1,
    "artifacts": [{"stage": "Data", "path": "/a", "time": "t"}],
    "training": {"step": 5},
}
TRAINED = {
    "attempt": 1,
    "artifacts": [
        {"stage": "Data", "path": "/a", "time": "t"},
        {"stage": "Training", "path": "/b", "time": "t"},
        {"stage": "Export", "path": "/c", "time": "t"},
        {"stage": "PostTraining", "name": "sft", "path": "/d", "time": "t"},
    ],
}


@pytest.fixture(scope="module")
def runs(control_plane: ControlPlane) -> Iterator[RunClient]:
    crd_client.install(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    with crd_client.client(control_plane, NAMESPACE) as client:
        for name, status in (("started", STARTED), ("trained", TRAINED)):
            code, answer = client.create(_named(demo_body(), name), dry_run=False)
            assert code == 201, answer
            code, answer = client.patch(name, {"status": status}, status=True)
            assert code == 200, answer
        yield client


def _named(body: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """As a user writes it: without what the server adds."""
    metadata = {"name": name or body["metadata"]["name"], "namespace": NAMESPACE}
    return {**body, "metadata": metadata}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_run_that_breaks_a_rule_is_refused_with_value_and_remedy(runs: RunClient, row: Row):
    code, answer = runs.create(_named(row.body(row.bad)))
    assert code == 422, answer
    causes = answer["details"]["causes"]
    assert len(causes) == 1, f"more than one rule: {causes}"
    for word in row.found:
        assert word in causes[0]["message"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_run_next_to_a_rule_is_accepted(runs: RunClient, row: Row):
    code, answer = runs.create(_named(row.body(row.good)))
    assert code == 201, answer


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.rule)
def test_edit_that_a_started_run_forbids_is_refused_with_the_remedy(runs: RunClient, edit: Edit):
    name = "trained" if edit.trained else "started"
    code, answer = runs.patch(name, _patch(edit.bad))
    assert code == 422, answer
    for word in edit.found:
        assert word in answer["message"]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.rule)
def test_edit_that_a_started_run_allows_is_accepted(runs: RunClient, edit: Edit):
    name = "trained" if edit.trained else "started"
    code, answer = runs.patch(name, _patch(edit.good))
    assert code == 200, answer


def test_spec_of_a_run_that_has_not_started_may_change(runs: RunClient):
    code, answer = runs.create(_named(demo_body(), "fresh"), dry_run=False)
    assert code == 201, answer
    for edit in EDITS:
        if not edit.trained:
            code, answer = runs.patch("fresh", _patch(edit.bad))
            is_refused_for_another_rule = code == 422 and "started" not in answer["message"]
            assert code == 200 or is_refused_for_another_rule, answer


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.architecture", "mamba", ("architecture", '"mamba"', '"llama"')),
        ("model.dim", "wide", ("dim", "string", "integer")),
        ("model.vocabSize", None, ("vocabSize", "Required")),
        ("training", None, ("training", "Required", "script")),
        ("script", {"steps": 1}, ("command", "Required")),
        ("training.optimizer.learningRate", 0, ("learningRate", "greater than 0")),
        ("data.sources", [], ("sources", "at least 1")),
        ("postTraining", [{"name": "x" * 17, "steps": 1}], ("name", "16")),
    ],
)
def test_run_outside_the_schema_is_refused_with_field_and_bound(
    runs: RunClient, path: str, value: object, words: tuple[str, ...]
):
    body = demo_body()
    set_field(body, f"spec.{path}", value)
    code, answer = runs.create(_named(body))
    assert code == 422
    for word in words:
        assert word in answer["message"]


def test_printed_columns_show_the_state(control_plane: ControlPlane, runs: RunClient):
    summary = {
        "type": "Succeeded",
        "status": "Unknown",
        "reason": "Training",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"conditions": [summary], "training": {"step": 7, "loss": 2.5, "nodes": 2}}
    code, answer = runs.patch("started", {"status": status}, status=True)
    assert code == 200, answer
    shown = control_plane.kubectl("get", "ptr", "started", f"--namespace={NAMESPACE}")
    titles, values = (line.split() for line in shown.strip().splitlines())
    columns = "NAME STATE STEP LOSS TOKENS/S GOODPUT RESTARTS NODES CHECKPOINT AGE"
    assert titles == columns.split()
    assert values[:4] == ["started", "Training", "7", "2.5"]


def _patch(changes: dict[str, Any]) -> dict[str, Any]:
    """A merge patch, in which null removes."""
    patch: dict[str, Any] = {}
    for path, value in changes.items():
        *parents, leaf = f"spec.{path}".split(".")
        target = patch
        for name in parents:
            target = target.setdefault(name, {})
        target[leaf] = value
    return patch
