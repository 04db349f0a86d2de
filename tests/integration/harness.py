"""What integration tests stand on: the API server as a user sees it, the operator as a process of
its own with its real service account, a stand-in for the kubelet and one for the coordinator.

There is no kubelet on a bare control plane: nodes are made by hand, and pods that the real
controllers make and the real scheduler binds stay Pending until a test says what became of them.
Everything else is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pretrain_llm.contract import codec
from pretrain_llm.contract.status import StatusDocument
from pretrain_operator.cluster import ApiError, Cluster
from tests.cluster import ControlPlane, toolchain

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "pretrain-operator"
RELEASE = "pretrain-operator"
RELEASE_NAMESPACE = "pretrain-system"

T = TypeVar("T")
Object = dict[str, Any]


def eventually(check: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true value of `check`; AssertionError with its last value after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:.0f} s; last seen: {value!r}")
        time.sleep(0.05)


def helm_template(*arguments: str, release: str = RELEASE) -> list[Object]:
    """What the chart renders; subprocess.CalledProcessError with helm's words in `stderr`."""
    command = [str(toolchain.helm()), "template", release, str(CHART)]
    command += [f"--namespace={RELEASE_NAMESPACE}", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [body for body in yaml.safe_load_all(output) if body]


class Api:
    """The operator's own client, in the administrator's name, without async."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._control_plane = control_plane
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._cluster = self._call(Cluster.connect(kubeconfig=str(control_plane.kubeconfig)))

    def close(self) -> None:
        self._call(self._cluster.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._call(self._cluster.get(kind, namespace, name))

    def list(self, kind: str, namespace: str, **labels: str) -> tuple[Object, ...]:
        selector = ",".join(f"pretrain.dev/{name}={value}" for name, value in labels.items())
        return self._call(self._cluster.list(kind, namespace, label_selector=selector)).items

    def create(self, body: Object) -> Object:
        return self._call(self._cluster.create(body))

    def apply(self, body: Object) -> Object:
        return self._call(self._cluster.apply(body))

    def delete(self, kind: str, namespace: str, name: str, **options: Any) -> Object:
        return self._call(self._cluster.delete(kind, namespace, name, **options))

    def put_status(self, body: Object, **changes: Any) -> Object:
        """Retried where another writer came between."""
        metadata = body["metadata"]
        while True:
            current = self.get(body["kind"], metadata["namespace"], metadata["name"])
            assert current is not None, f"{body['kind']} {metadata['name']} is gone"
            wanted = {**current, "status": {**current.get("status", {}), **changes}}
            try:
                return self._call(self._cluster.replace_status(wanted))
            except ApiError as error:
                if not error.is_conflict:
                    raise

    def patch(self, kind: str, namespace: str, name: str, patch: Object) -> None:
        """A merge patch, as `kubectl edit` sends."""
        self._control_plane.kubectl(
            "patch",
            kind,
            name,
            f"--namespace={namespace}",
            "--type=merge",
            f"-p={json.dumps(patch)}",
        )

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self._control_plane.kubectl(*arguments, stdin=stdin)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)


class Kubelets:
    """Nodes without a machine. Pods that are to go from a live one are let go of."""

    NODES = ("node-1", "node-2", "node-3")

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stopped = threading.Event()
        for name in self.NODES:
            # The label is the kubelet's: without it no anti-affinity keeps a run's slots apart.
            metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
            api.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata})
            self.report(name, "True")
        self._thread = threading.Thread(target=self._let_go_for_ever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()

    def report(self, node: str, ready: str) -> None:
        """What the Ready condition says; "Unknown" is what becomes of a node without power."""
        condition = {"type": "Ready", "status": ready, "reason": "Test", "message": ""}
        room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
        status = {"conditions": [condition], "capacity": room, "allocatable": room}
        self._api.kubectl(
            "patch", "node", node, "--subresource=status", "--type=merge",
            f"-p={json.dumps({'status': status})}",
        )  # fmt: skip

    def _let_go_for_ever(self) -> None:
        while not self._stopped.wait(0.3):
            for pod in self._api.list("Pod", ""):
                if pod["metadata"].get("deletionTimestamp") and self._is_ready(pod):
                    self._let_go(pod["metadata"])

    def _is_ready(self, pod: Object) -> bool:
        node = self._api.get("Node", "", pod["spec"].get("nodeName", self.NODES[0]))
        assert node is not None
        return any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in node["status"]["conditions"]
        )

    def _let_go(self, metadata: Object) -> None:
        with contextlib.suppress(ApiError):  # it is gone meanwhile
            self._api.delete(
                "Pod", metadata["namespace"], metadata["name"],
                grace_seconds=0, uid=metadata["uid"],
            )  # fmt: skip


class Coordinators:
    """Serves the status documents that a test sets, as coordinators would."""

    def __init__(self) -> None:
        documents: dict[str, StatusDocument] = {}
        self.documents = documents  # "namespace/run" -> what its coordinator says

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                document = documents.get(self.path.strip("/"))
                content = codec.to_json(document).encode() if document else b""
                self.send_response(200 if document else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Not into the test's output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/{{namespace}}/{{run}}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Operator:
    """The operator as a process, with the rights that the chart gives it and no more."""

    def __init__(
        self,
        api: Api,
        control_plane: ControlPlane,
        url: str,
        directory: Path,
        *values: str,
        release: str = RELEASE,
    ) -> None:
        """`values` are helm's; arguments and settings are those of the rendered Deployment."""
        self._process: subprocess.Popen[bytes] | None = None
        self._coordinator_url = url
        self.log = directory / "operator.log"
        self._settings = directory / "settings.yaml"
        self._kubeconfig = directory / "operator.kubeconfig"
        objects = helm_template(*values, release=release)
        install(api, objects)
        by_kind = {body["kind"]: body for body in objects}
        pod = by_kind["Deployment"]["spec"]["template"]["spec"]
        self._arguments: list[str] = pod["containers"][0]["args"]
        self._chart_settings = yaml.safe_load(by_kind["ConfigMap"]["data"]["settings.yaml"])
        config = service_account_config(api, control_plane, pod["serviceAccountName"])
        self._kubeconfig.write_text(json.dumps(config))

    def start(self, poll_seconds: float = 0.5) -> None:
        """With the chart's settings but for the poll. Returns when it serves its health address."""
        document = {**self._chart_settings, "pollIntervalSeconds": poll_seconds}
        self._settings.write_text(yaml.safe_dump(document))
        self.metrics_port, health_port = _free_port(), _free_port()
        self._health = f"http://127.0.0.1:{health_port}/healthz"
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "pretrain_operator",
                    *self._arguments,
                    f"--kubeconfig={self._kubeconfig}",
                    f"--settings={self._settings}",
                    f"--liveness={self._health}",
                    f"--metrics-port={self.metrics_port}",
                    f"--coordinator-url={self._coordinator_url}",
                ],
                env={**os.environ, "PYTHONPATH": f"{ROOT}/operator:{ROOT}/llm"},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(self._is_healthy, f"answer of the operator; its log: {self.log}")

    def kill(self) -> None:
        """As the kernel would: no clean-up of any kind."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None

    def stop(self) -> int:
        """As the kubelet would; the exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(15)
        self._process = None
        return code

    def resident_bytes(self) -> int:
        assert self._process is not None
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu_seconds(self) -> float:
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self) -> dict[str, float]:
        """Series name with labels -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as response:
            lines = response.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def api_calls(self, *verbs: str) -> float:
        """Requests since its start."""
        wanted = [f'verb="{verb}"' for verb in verbs]
        return sum(
            value
            for name, value in self.metrics().items()
            if name.startswith("pretrain_operator_api_calls")
            and any(verb in name for verb in wanted)
        )

    def _is_healthy(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the operator ended:\n{self.log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(self._health, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def install(api: Api, objects: list[Object]) -> None:
    """The chart without its Deployment: the operator of these tests is a process."""
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE_NAMESPACE}}
    kept = [body for body in objects if body["kind"] != "Deployment"]
    text = yaml.safe_dump_all([namespace, *kept])
    api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    crd = "customresourcedefinition/pretrainruns.pretrain.dev"
    api.kubectl("wait", "--for=condition=Established", crd, "--timeout=20s")


def service_account_config(api: Api, control_plane: ControlPlane, account: str) -> Object:
    """A kubeconfig in the name of the operator's service account."""
    token = api.kubectl("create", "token", account, f"--namespace={RELEASE_NAMESPACE}").strip()
    config: Object = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    return config


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
