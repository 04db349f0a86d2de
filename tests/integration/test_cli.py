"""The `pretrain` command against a real API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_operator.cli import main
from tests.cluster import ControlPlane
from tests.integration.harness import Api, Coordinators, Operator
from tests.integration.walk import Walk


@pytest.fixture
def arguments(control_plane: ControlPlane, namespace: str) -> list[str]:
    return [f"--kubeconfig={control_plane.kubeconfig}", f"--namespace={namespace}"]


def test_status_shows_a_training_run(
    operator: Operator,
    api: Api,
    coordinators: Coordinators,
    namespace: str,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Walk(api, coordinators, namespace).to_training()
    assert main(["status", "demo", *arguments]) == 0
    shown = capsys.readouterr().out
    assert f"demo in {namespace}" in shown
    assert "Training" in shown
    assert "step 40/240" in shown

    assert main(["status", "demo", "--output=json", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == "Training"
    assert document["status"]["training"]["step"] == 40


def test_run_that_is_not_there_is_one_line_with_what_to_do(
    operator: Operator, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "nothing", *arguments]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'nothing'" in line
    assert "kubectl get pretrainruns" in line


def test_kubeconfig_that_is_not_there_is_one_line_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "demo", f"--kubeconfig={tmp_path / 'none'}", "-n", "x"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "--kubeconfig" in line
