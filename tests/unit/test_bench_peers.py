"""The peers' manifests: ours but for who starts the workers again.

Expected Jobs are in golden_bench; after an intended change: python -m tests.unit.test_bench_peers
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hack.bench import peers
from hack.bench.trials import ELASTIC, RECREATE
from pretrain_operator.crd import PlainDumper

GOLDEN = Path(__file__).parent / "golden_bench"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

OURS: dict[str, Any] = {
    "metadata": {"name": "ours-train-1", "namespace": "bench"},
    "spec": {
        "podFailurePolicy": {"rules": []},
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "subdomain": "ours-train",
                "terminationGracePeriodSeconds": 120,
                "tolerations": [{"key": "node.kubernetes.io/unreachable", "tolerationSeconds": 5}],
                "containers": [
                    {
                        "name": "main",
                        "image": "trainer:1",
                        "command": ["python", "-m", "pretrain_llm.agent"],
                        "env": [
                            {"name": "PRETRAIN_ATTEMPT", "value": "1"},
                            {"name": "OMP_NUM_THREADS", "value": "1"},
                        ],
                        "volumeMounts": [{"name": "storage", "mountPath": "/workspace"}],
                    }
                ],
                "volumes": [
                    {"name": "config", "configMap": {"name": "ours-config-1"}},
                    {"name": "storage", "persistentVolumeClaim": {"claimName": "bench"}},
                ],
            }
        },
    },
}


def made(system: str) -> Any:
    return peers.job(system, OURS, 3, 2, "/bench/worker.py")


def golden(system: str) -> Path:
    return GOLDEN / f"job-{system}-3.yaml"


@pytest.mark.parametrize("system", [RECREATE, ELASTIC])
def test_job_of_a_peer_is_as_expected(system: str) -> None:
    assert made(system) == yaml.load(golden(system).read_text(), LOADER)


def test_patience_is_one_more_variable_of_the_worker() -> None:
    found = peers.job(RECREATE, OURS, 3, 2, "/bench/worker.py", 600)
    environment = found["spec"]["template"]["spec"]["containers"][0]["env"]
    assert environment.pop() == {"name": "BENCH_PATIENCE_SECONDS", "value": "600"}
    assert found == made(RECREATE)


def test_config_of_a_peer_has_a_folder_of_its_own_and_nothing_in_memory() -> None:
    ours = {"run": "ours", "seed": 1, "checkpoint": {"interval": 5, "memory": {"interval": 1}}}
    assert json.loads(peers.config(json.dumps(ours), RECREATE)) == {
        "run": RECREATE,
        "seed": 1,
        "checkpoint": {"interval": 5, "memory": None},
    }


@pytest.mark.parametrize(
    ("change", "job_name", "phase", "deleted_at", "expected"),
    [
        ("MODIFIED", "recreate-2", "Running", None, False),
        ("MODIFIED", "recreate-2", "Failed", None, True),
        ("MODIFIED", "recreate-2", "Running", "2026-11-21T12:00:00Z", True),
        ("DELETED", "recreate-2", "Running", None, True),
        ("MODIFIED", "recreate-1", "Failed", None, False),
    ],
    ids=["runs", "failed", "being-deleted", "gone", "of-the-job-before"],
)
def test_job_is_made_anew_at_the_first_sign_of_a_lost_pod(
    change: str, job_name: str, phase: str, deleted_at: str | None, expected: bool
) -> None:
    metadata = SimpleNamespace(labels={peers.JOB_LABEL: job_name}, deletion_timestamp=deleted_at)
    pod = SimpleNamespace(metadata=metadata, status=SimpleNamespace(phase=phase))
    assert peers.calls_for_recreate(change, pod, "recreate-2") is expected


if __name__ == "__main__":
    for name in (RECREATE, ELASTIC):
        GOLDEN.mkdir(exist_ok=True)
        golden(name).write_text(yaml.dump(made(name), Dumper=PlainDumper))
