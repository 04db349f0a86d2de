"""Where the demo runs: a local cluster that it starts and removes, or the current context."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hack import local_values
from tests.cluster import Cluster, binaries, toolchain

from .kube import Kube, StepError
from .scenario import ROOT

DIRECTORY = ROOT / "build" / "demo"


@dataclass(frozen=True)
class Place:
    kube: Kube
    values: Path | None  # Helm values for this cluster
    cluster: Cluster | None = None  # None: not ours to start or stop


def demo_cluster() -> Cluster:
    return Cluster("demo", DIRECTORY / "cluster")


@contextmanager
def local(cluster: Cluster, values: Path, *, nodes: int = 3, keep: bool = False) -> Iterator[Place]:
    """A fresh cluster; removed at the end, whatever happened, unless it is to be kept."""
    try:
        cluster.up(nodes=nodes)
        values.write_text(json.dumps(local_values.machine_values()))
        kube = Kube(str(binaries.path("kubectl")), str(toolchain.helm()), str(cluster.kubeconfig))
        kube.apply(_default_storage_class())
        cluster.create_volume("storage")
        yield Place(kube, values, cluster)
    finally:
        if not keep:
            cluster.down()


def current(values: Path, image_prefix: str | None, given: Path | None = None) -> Place:
    """The current kube context; images from its registry, vLLM's CPU build for this recipe.

    `given` are chart values to use as they are instead.
    """
    missing = [tool for tool in ("kubectl", "helm") if not shutil.which(tool)]
    if missing:
        raise StepError(
            f"{' and '.join(missing)} not found on PATH: install it, or leave out CLUSTER"
        )
    if given is None:
        values.write_text(json.dumps(local_values.registry_values(image_prefix)))
    return Place(Kube("kubectl", "helm"), given or values)


def _default_storage_class() -> dict[str, object]:
    return json.loads(
        """{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate"}"""
    )
