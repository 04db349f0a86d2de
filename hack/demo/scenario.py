"""The steps of the main job on any cluster. Each says what it waits for and fails with a reason."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pretrain_llm.contract import environment

from .kube import Kube, StepError, wait_for

Object = Mapping[str, Any]

SYSTEM_NAMESPACE = "pretrain-system"
RELEASE = "pretrain-operator"
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pretrain-operator"
RECIPE = ROOT / "recipes" / "demo.yaml"

# Runs in a training pod: waits until the run is half-way between two checkpoints, so that there are
# steps to run again, then kills one of the workers that the agent lists.
_KILL_ONE_WORKER = f"""
import json, os, signal, sys, time, urllib.request
interval, deadline = int(sys.argv[1]), time.monotonic() + 120
status = "http://" + os.environ["{environment.COORDINATOR}"] + "/status"
while True:
    with urllib.request.urlopen(status, timeout=10) as reply:
        step = json.load(reply)["progress"]["step"]
    if step % interval in range(interval // 2, interval - 2):
        break
    if time.monotonic() > deadline:
        sys.exit(f"no step between two checkpoints was seen in 120 s; the last was {{step}}")
    time.sleep(0.05)
workers = json.load(open("{environment.SCRATCH_PATH}/workers.json"))
os.kill(workers["workers"][0]["pid"], signal.SIGKILL)
"""
# Runs in the loader's pod: standard input is a tar archive.
_UNPACK = (
    "import sys, tarfile; tarfile.open(fileobj=sys.stdin.buffer, mode='r|')"
    f".extractall('{environment.VOLUME_PATH}', filter='data')"
)


def install_operator(kube: Kube, values: Path | None) -> None:
    """Installs or upgrades the chart and waits until the operator is ready."""
    options = ["--values", str(values)] if values else []
    kube.chart(
        "upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM_NAMESPACE,
        "--create-namespace", "--wait", "--timeout", "3m", *options, timeout_seconds=200,
    )  # fmt: skip


def settings(kube: Kube) -> dict[str, Any]:
    """The operator's settings as it reads them: the chart's defaults are in."""
    found = kube.get("configmap", f"{RELEASE}-settings", "-n", SYSTEM_NAMESPACE)
    document: dict[str, Any] = yaml.safe_load(found["data"]["settings.yaml"])
    return document


def manifest(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def load_corpus(kube: Kube, run: Object, corpus: Path) -> int:
    """Puts the folder on the run's claim as `corpus/`, through a pod; returns its bytes."""
    namespace, claim = run["metadata"]["namespace"], run["spec"]["storage"]["claimName"]
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        _claim(namespace, claim, run["spec"]["storage"].get("create", {}).get("size", "10Gi")),
        _loader(namespace, claim, settings(kube)["templates"]["data"]),
    )
    kube.run("wait", "-n", namespace, "pod/corpus-loader", "--for=condition=Ready",
             "--timeout=120s", timeout_seconds=130)  # fmt: skip
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(corpus, arcname="corpus")
    kube.run("exec", "-i", "-n", namespace, "corpus-loader", "--", "python", "-c", _UNPACK,
             stdin=archive.getvalue(), timeout_seconds=300)  # fmt: skip
    kube.run("delete", "-n", namespace, "pod/corpus-loader", "--wait=false")
    return sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())


def _claim(namespace: str, name: str, size: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }


def _loader(namespace: str, claim: str, template: Object) -> dict[str, Any]:
    mounts = [{"name": "storage", "mountPath": environment.VOLUME_PATH}]
    volumes = [{"name": "storage", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "corpus-loader", "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumes": volumes + list(template.get("volumes", [])),
            "containers": [{
                "name": "loader",
                "image": template["image"],
                "command": ["python", "-c", "import signal; signal.pause()"],
                "env": list(template.get("env", [])),
                "volumeMounts": mounts + list(template.get("volumeMounts", [])),
                "securityContext": {
                    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }  # fmt: skip


class RunWatch:
    """One PretrainRun, looked at through its object alone."""

    def __init__(self, kube: Kube, name: str, namespace: str,
                 show: Callable[[Object], None] = lambda _run: None) -> None:  # fmt: skip
        self.kube, self.name, self.namespace, self._show = kube, name, namespace, show

    def object(self) -> dict[str, Any]:
        found: dict[str, Any] = self.kube.get("pretrainrun", self.name, "-n", self.namespace)
        self._show(found)
        return found

    def until(self, what: str, is_so: Callable[[Object], bool], timeout_seconds: float) -> Object:
        """Waits for a fact about the run. Raises StepError also where the run stopped for good."""

        def look() -> Object | None:
            run = self.object()
            if is_so(run):
                return run
            summary = condition(run, "Succeeded")
            if summary.get("status") == "False":
                raise StepError(f"{what}: {summary['reason']}: {summary['message']}")
            return None

        return wait_for(what, look, timeout_seconds=timeout_seconds, interval_seconds=1)

    def until_step(self, step: int, timeout_seconds: float = 600) -> Object:
        return self.until(f"step {step}", lambda run: current_step(run) >= step, timeout_seconds)

    def until_succeeded(self, timeout_seconds: float = 900) -> Object:
        return self.until("the run's end",
                          lambda run: condition(run, "Succeeded").get("status") == "True",
                          timeout_seconds)  # fmt: skip

    def patch(self, spec: dict[str, Any]) -> None:
        """What a user does with `kubectl edit`."""
        self.kube.run("patch", "pretrainrun", self.name, "-n", self.namespace, "--type=merge",
                      "-p", json.dumps({"spec": spec}))  # fmt: skip

    def training_pods(self) -> list[dict[str, Any]]:
        selector = f"pretrain.dev/run={self.name},pretrain.dev/component=training"
        found = self.kube.get("pods", "-n", self.namespace, "-l", selector)["items"]
        return sorted(found, key=lambda pod: pod["metadata"]["name"])

    def kill_one_worker(self) -> str:
        """SIGKILL to a worker inside its live pod, between checkpoints; returns the pod's name."""
        interval = self.object()["spec"]["checkpoint"]["interval"]
        pod: str = self.training_pods()[-1]["metadata"]["name"]
        self.kube.run("exec", "-n", self.namespace, pod, "--", "python", "-c", _KILL_ONE_WORKER,
                      str(interval), timeout_seconds=150)  # fmt: skip
        return pod

    def ask(self, question: str) -> str:
        """An answer of the served model, as `pretrain chat` gets it through its Service."""
        command = [sys.executable, "-m", "pretrain_operator.cli", "chat", self.name, question,
                   "--namespace", self.namespace, "--max-tokens", "48"]  # fmt: skip
        if self.kube.kubeconfig:
            command += ["--kubeconfig", self.kube.kubeconfig]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            raise StepError(f"chat: {done.stderr.strip()}")
        return done.stdout.strip()


def condition(run: Object, kind: str) -> Object:
    conditions = run.get("status", {}).get("conditions", [])
    return next((item for item in conditions if item["type"] == kind), {})


def current_step(run: Object) -> int:
    return int(run.get("status", {}).get("training", {}).get("step", 0))


def operator_rss_bytes(kube: Kube) -> int:
    """Resident memory of the operator's process, from its own metrics."""
    pods = kube.get(
        "pods", "-n", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/name=pretrain-operator"
    )
    pod = pods["items"][0]["metadata"]["name"]
    metrics = kube.raw(f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/pods/{pod}:9090/proxy/metrics")
    line = next(line for line in metrics.splitlines()
                if line.startswith("process_resident_memory_bytes "))  # fmt: skip
    return int(float(line.split()[1]))
