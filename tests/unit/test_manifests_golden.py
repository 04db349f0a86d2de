"""The whole desired objects of the demo's run, compared with YAML files in golden/.

After an intended change:  python -m tests.unit.test_manifests_golden
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pretrain_operator.crd import PlainDumper

from .runs import demo_body
from .simulation import cluster
from .world import Operator, World

FOLDER = Path(__file__).parent / "golden"
TICKS = 40

GPU = {
    "nodes": {
        "count": 2,
        "spares": 1,
        "devicesPerNode": 8,
        "template": {
            "image": "example/own-trainer:2",
            "imagePullSecrets": ["registry"],
            "nodeSelector": {"pool": "h100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "env": [{"name": "NCCL_DEBUG", "value": "WARN"}],
            "resources": {"limits": {"memory": "900Gi"}},
            "annotations": {"k8s.v1.cni.cncf.io/networks": "rdma"},
        },
    },
    "storage": {"claimName": "big", "create": {"size": "10Ti", "storageClassName": "fast"}},
    "serving": {"replicas": 2, "devices": 2, "arguments": ["--enable-prefix-caching"]},
}


def rendered(body: dict[str, Any]) -> dict[str, str]:
    """File name: YAML, of every object that the run has on its way."""
    simulation = cluster(World(body), slots=body["spec"]["nodes"]["count"])
    texts: dict[str, str] = {}
    for _ in range(TICKS):
        operator = Operator(simulation.world)
        for desired in operator.plan().apply:
            name = f"{desired['kind'].lower()}-{desired['metadata']['name']}.yaml"
            texts.setdefault(name, yaml.dump(desired, Dumper=PlainDumper))
        operator.settle()
        simulation.tick()
    return texts


def wanted() -> dict[Path, str]:
    bodies = {"cpu": demo_body(), "gpu": demo_body(training__globalBatchSize=32, **GPU)}
    bodies["gpu"]["metadata"]["name"] = "big"
    return {
        FOLDER / folder / name: text
        for folder, body in bodies.items()
        for name, text in rendered(body).items()
    }


def test_desired_objects_are_the_golden_ones():
    objects = wanted()
    assert sorted(objects) == sorted(FOLDER.glob("*/*.yaml"))
    for path, text in objects.items():
        assert text == path.read_text(), f"{path.name}: see this module's docstring"


if __name__ == "__main__":
    for stale in FOLDER.glob("*/*.yaml"):
        stale.unlink()
    for path, text in wanted().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
