"""Where the demo runs: a local cluster that it starts and removes, or the current context."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    cluster.up(nodes=nodes)
    try:
        values.write_text(
            subprocess.run([sys.executable, str(ROOT / "hack" / "local_values.py")], check=True,
                           capture_output=True, text=True).stdout
        )  # fmt: skip
        kube = Kube(str(binaries.path("kubectl")), str(toolchain.helm()), str(cluster.kubeconfig))
        kube.apply(_default_storage_class())
        cluster.create_volume("storage")
        yield Place(kube, values, cluster)
    finally:
        if not keep:
            cluster.down()


def current() -> Place:
    """The current kube context: the chart's own values, images from its registry."""
    missing = [tool for tool in ("kubectl", "helm") if not shutil.which(tool)]
    if missing:
        raise StepError(
            f"{' and '.join(missing)} not found on PATH: install it, or leave out CLUSTER"
        )
    return Place(Kube("kubectl", "helm"), None)


def _default_storage_class() -> dict[str, object]:
    return json.loads(
        """{"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "Immediate"}"""
    )
