"""The whole desired objects of the demo's run, compared with YAML files in golden/.

After an intended change:  python -m tests.unit.test_manifests_golden
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pretrain_operator import conditions
from pretrain_operator.crd import PlainDumper

from .runs import demo_body
from .simulation import cluster
from .world import Operator, World

FOLDER = Path(__file__).parent / "golden"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # 20 times as fast, where it is built in

GPU = {
    "nodes": {
        "count": 2,
        "min": 1,
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
    "checkpoint": {"memory": {"interval": 5, "sizeLimit": "400Gi"}},
    "storage": {"claimName": "big", "create": {"size": "10Ti", "storageClassName": "fast"}},
    "serving": {"replicas": 2, "devices": 2, "arguments": ["--enable-prefix-caching"]},
}


def made(body: dict[str, Any]) -> dict[str, Any]:
    """File name: every object that the run has on its way to Serving."""
    simulation = cluster(World(body), slots=body["spec"]["nodes"]["count"])
    objects: dict[str, Any] = {}
    while conditions.state(simulation.world.status) != conditions.SERVING:
        operator = Operator(simulation.world)
        for desired in operator.plan().apply:
            objects.setdefault(f"{desired['kind']}-{desired['metadata']['name']}.yaml", desired)
        operator.settle()
        simulation.tick()
    return objects


def wanted() -> dict[Path, Any]:
    bodies = {
        "cpu": demo_body(training__steps=20),
        "gpu": demo_body(training__steps=20, training__globalBatchSize=32, **GPU),
    }
    bodies["gpu"]["metadata"]["name"] = "big"
    return {
        FOLDER / folder / name.lower(): desired
        for folder, body in bodies.items()
        for name, desired in made(body).items()
    }


def test_desired_objects_are_the_golden_ones():
    objects = wanted()
    assert sorted(objects) == sorted(FOLDER.glob("*/*.yaml"))
    for path, desired in objects.items():
        golden = yaml.load(path.read_text(), LOADER)
        assert desired == golden, f"{path.name}: see this module's docstring"


if __name__ == "__main__":
    for stale in FOLDER.glob("*/*.yaml"):
        stale.unlink()
    for path, desired in wanted().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.dump(desired, Dumper=PlainDumper))
