"""`pretrain sweep` against a real API server: applied, applied again, grown, and its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain_operator.cli import main
from tests.cluster import ControlPlane
from tests.unit.runs import demo_body

from . import crd_client

NAMESPACE = "sweep"
RATE, SEED = "training.optimizer.learningRate", "training.seed"


def test_sweep_is_applied_once_grows_and_shows_its_results(
    control_plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crd_client.install(control_plane)
    control_plane.kubectl("create", "namespace", NAMESPACE)
    recipe = tmp_path / "recipe.yaml"
    body = demo_body()
    body["metadata"] = {"name": "demo", "namespace": NAMESPACE}
    body["spec"]["suspend"] = True  # an operator of another test may be there
    recipe.write_text(yaml.safe_dump(body))
    place = [f"--kubeconfig={control_plane.kubeconfig}"]

    def ran(*words: str) -> Any:
        capsys.readouterr()
        assert main(["sweep", *words, "-o", "json", *place]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    grid = ("-f", str(recipe), f"--set={RATE}=1e-3,4e-3", f"--set={SEED}=1,2")
    first = ran(*grid)
    assert [run["outcome"] for run in first] == ["created"] * 4
    assert {run["outcome"] for run in ran(*grid)} == {"unchanged"}
    grown = ran(*grid[:2], f"--set={RATE}=1e-3,2e-3", f"--set={SEED}=1,2")
    assert [run["outcome"] for run in grown] == ["unchanged", "unchanged", "created", "created"]

    with crd_client.client(control_plane, NAMESPACE) as client:
        for run, loss in ((first[0], 2.5), (first[3], 2.25)):
            told = {"training": {"step": 240, "totalSteps": 240, "loss": loss}}
            code, answer = client.patch(run["run"], {"status": told}, status=True)
            assert code == 200, answer
    results = ran("status", "demo", f"--namespace={NAMESPACE}")
    assert len(results) == 6
    best = results[0]
    assert (best["run"], best["loss"], best["step"]) == (first[3]["run"], 2.25, 240)
    assert best["values"] == {RATE: 4e-3, SEED: 2}
    assert [each["loss"] for each in results] == [2.25, 2.5, None, None, None, None]

    assert main(["sweep", "status", "demo", f"--namespace={NAMESPACE}", *place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "learningRate", "seed", "state", "step", "loss"]
    assert "2.2500" in lines[1]

    taken = {"metadata": {"labels": {"pretrain.dev/sweep": "other"}}}
    control_plane.kubectl(
        "patch", "ptr", first[0]["run"], f"--namespace={NAMESPACE}", "--type=merge",
        f"--patch={json.dumps(taken)}",
    )  # fmt: skip
    assert main(["sweep", *grid, *place]) == 1
    assert "is of sweep other, not of demo" in capsys.readouterr().err
    assert main(["sweep", "status", "nothing", f"--namespace={NAMESPACE}", *place]) == 1
    assert "'nothing'" in capsys.readouterr().err
