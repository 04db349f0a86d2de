"""What all systems stand on: the cluster, the operator, the text, the volume, and our own run.

Four nodes: one for the operator and the coordinator, three for training, so that a lost one can be
replaced in every system.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.demo import place, scenario
from hack.demo.kube import Kube
from tests.cluster import Cluster
from tests.cluster.images import USER_ID

RUN = Path(__file__).parent / "run.yaml"
RUN_NAME = "ours"
DIRECTORY = scenario.ROOT / "build" / "bench"
CORPUS = scenario.ROOT / "build" / "corpus" / "python-doc.jsonl"
CORPUS_BYTES = 3_000_000
ROLE_LABEL = "pretrain.dev/bench"
NODES = 4
_SHARED_FOLDERS = ("data", "tokenizer")


@dataclass(frozen=True)
class Ground:
    kube: Kube
    cluster: Cluster
    volume: Path  # the run's volume, as this machine sees it
    watch: scenario.RunWatch
    interval: int  # steps between checkpoints
    training_job: dict[str, Any]  # ours: the peers' pods are made from it
    run_json: str

    @property
    def node_logs(self) -> Path:
        return self.cluster.directory / "nodes"

    def link_inputs(self, system: str) -> None:
        """Gives a peer the shards and the tokenizer of our run."""
        folder = self.volume / system
        folder.mkdir()
        for name in _SHARED_FOLDERS:
            (folder / name).symlink_to(f"../{RUN_NAME}/{name}")
        os.chown(folder, USER_ID, USER_ID)


@contextmanager
def prepared() -> Iterator[Ground]:
    """A fresh cluster on which our run has begun to train. Raises StepError, ClusterError."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    cluster = Cluster("bench", DIRECTORY / "cluster")
    values = DIRECTORY / "values.yaml"
    with place.local(cluster, values, nodes=NODES) as where:
        kube = where.kube
        _assign_roles(kube)
        values.write_text(json.dumps(_on_system_node(json.loads(values.read_text()))))
        scenario.install_operator(kube, values)
        run = scenario.manifest(RUN)
        scenario.load_corpus(kube, run, _short_corpus())
        kube.run("apply", "-f", str(RUN))
        yield _begun(kube, cluster, run)


def _begun(kube: Kube, cluster: Cluster, run: dict[str, Any]) -> Ground:
    namespace = run["metadata"]["namespace"]
    watch = scenario.RunWatch(kube, RUN_NAME, namespace)
    watch.until_step(1, timeout_seconds=240)

    def ours(kind: str, component: str) -> list[dict[str, Any]]:
        selector = f"pretrain.dev/run={RUN_NAME}"
        selector += f",pretrain.dev/component={component}" if component else ""
        items: list[dict[str, Any]] = kube.get(kind, "-n", namespace, "-l", selector)["items"]
        return items

    (job,) = ours("jobs", "training")
    mounted = next(v["configMap"]["name"] for v in job["spec"]["template"]["spec"]["volumes"]
                   if "configMap" in v)  # fmt: skip
    config = kube.get("configmap", mounted, "-n", namespace)["data"]["run.json"]
    return Ground(
        kube,
        cluster,
        cluster.directory / "volumes" / "storage",
        watch,
        run["spec"]["checkpoint"]["interval"],
        job,
        config,
    )


def _assign_roles(kube: Kube) -> None:
    kube.run("label", "node", "node-1", f"{ROLE_LABEL}=system")
    training = [f"node-{index}" for index in range(2, NODES + 1)]
    kube.run("label", "node", *training, f"{ROLE_LABEL}=training")


def _on_system_node(values: dict[str, Any]) -> dict[str, Any]:
    """The operator and the coordinator are not on the nodes that lose their power."""
    selector = {ROLE_LABEL: "system"}
    templates = values["settings"]["templates"]
    templates["coordinator"] = {**templates["coordinator"], "nodeSelector": selector}
    return {**values, "nodeSelector": selector}


def _short_corpus() -> Path:
    """Enough text to train on for as long as the bench takes."""
    folder = DIRECTORY / "corpus"
    folder.mkdir(exist_ok=True)
    with CORPUS.open("rb") as source, (folder / CORPUS.name).open("wb") as copy:
        copy.writelines(source.readlines(CORPUS_BYTES))
    return folder
