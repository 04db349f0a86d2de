"""The control plane alone, as integration tests use it: real etcd, API server and controllers."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ClusterError, ControlPlane, processes, rundir

WIDGET_DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.test"},
    "spec": {
        "group": "example.test",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "low": {"type": "integer"},
                            "high": {"type": "integer"},
                        },
                        "required": ["low", "high"],
                        "x-kubernetes-validations": [
                            {"rule": "self.low <= self.high", "message": "low exceeds high"},
                            {"rule": "self.low == oldSelf.low", "message": "low is immutable"},
                        ],
                    }
                },
            }
        ],
    },
}
INDEXED_JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "indexed"},
    "spec": {
        "completions": 3,
        "parallelism": 3,
        "completionMode": "Indexed",
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "none.invalid/none:1"}],
            }
        },
    },
}


def widget(name: str, low: int, high: int) -> dict[str, Any]:
    metadata = {"name": name}
    return {
        "apiVersion": "example.test/v1",
        "kind": "Widget",
        "metadata": metadata,
        "low": low,
        "high": high,
    }


def apply(control_plane: ControlPlane, document: dict[str, Any]) -> None:
    control_plane.kubectl("apply", "--filename=-", stdin=json.dumps(document))


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane("test-control-plane") as started:
        apply(started, WIDGET_DEFINITION)
        started.kubectl("wait", "--for=condition=Established", "crd/widgets.example.test")
        yield started


def test_crd_object_breaking_a_cel_rule_is_rejected_with_its_message(
    control_plane: ControlPlane,
) -> None:
    with pytest.raises(ClusterError, match="low exceeds high"):
        apply(control_plane, widget("upside-down", low=2, high=1))


def test_crd_object_changing_an_immutable_field_is_rejected(control_plane: ControlPlane) -> None:
    apply(control_plane, widget("fixed", low=1, high=2))

    with pytest.raises(ClusterError, match="low is immutable"):
        apply(control_plane, widget("fixed", low=2, high=2))


def test_indexed_job_applied_gets_one_pod_per_index(control_plane: ControlPlane) -> None:
    apply(control_plane, INDEXED_JOB)

    def indexes() -> list[str]:
        path = "{.items[*].metadata.labels.batch\\.kubernetes\\.io/job-completion-index}"
        selected = ("get", "pods", "--selector=job-name=indexed", f"--output=jsonpath={path}")
        return sorted(control_plane.kubectl(*selected).split())

    processes.wait_until(lambda: indexes() == ["0", "1", "2"], "one pod per index", 20, 0.2)


def test_api_server_killed_and_restarted_still_has_its_objects(
    control_plane: ControlPlane,
) -> None:
    apply(control_plane, widget("kept", low=1, high=2))

    control_plane.restart("kube-apiserver")

    assert "kept" in control_plane.kubectl("get", "widgets", "--output=name")


def test_two_control_planes_at_once_have_their_own_objects(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    with ControlPlane("second", tmp_path / "second") as second:
        second.kubectl("create", "namespace", "only-here")

        assert "only-here" not in control_plane.kubectl("get", "namespaces", "--output=name")
    assert control_plane.is_running()


def test_control_plane_taken_down_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    with ControlPlane("gone", directory):
        started = processes.recorded(directory)
        assert all(processes.is_running(process) for process in started.values())

    assert len(started) == 4
    assert not any(processes.is_running(process) for process in started.values())
    assert not directory.exists()


def test_kill_of_a_process_id_given_to_somebody_else_touches_nobody() -> None:
    impostor = processes.Process(os.getpid(), start_ticks=1)

    processes.kill([impostor])

    assert not processes.is_running(impostor)


def test_up_in_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("do not delete")

    with pytest.raises(ClusterError, match="is not empty: name another directory"):
        ControlPlane("greedy", tmp_path).up()
    rundir.remove(tmp_path)

    assert precious.read_text() == "do not delete"
