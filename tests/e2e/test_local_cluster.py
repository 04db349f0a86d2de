"""The local cluster itself: what every other end-to-end test takes for granted."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, Node, processes, rundir
from tests.cluster.configs import HOST_IMAGE
from tests.cluster.processes import wait_until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.base_prefix).resolve() / "bin" / f"python3.{sys.version_info.minor}"
SERVE_OWN_NAME = """
import http.server, os, pathlib
pathlib.Path("/data", os.environ["NODE"]).touch()
class OwnName(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["NODE"].encode())
http.server.HTTPServer(("", 8000), OwnName).serve_forever()
"""
ASK_AROUND = """
import json, os, socket, ssl, urllib.request
def ask(url):
    context = ssl._create_unverified_context()
    return urllib.request.urlopen(url, timeout=5, context=context).read().decode()
def refusal(act):
    try:
        act()
    except OSError as error:
        return error.strerror
print(json.dumps({
    "user": os.getuid(),
    "answered": sorted({ask("http://web/") for _ in range(40)}),
    "addresses": len({row[4][0] for row in socket.getaddrinfo("web-pods", None)}),
    "api": "gitVersion" in ask("https://kubernetes.default.svc/version"),
    "volume": sorted(os.listdir("/data")),
    "root": refusal(lambda: open("/anything", "w")),
    "outside": refusal(lambda: socket.create_connection(("192.0.2.1", 80), timeout=5)),
}))
"""


def apply(cluster: Cluster, *documents: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": documents}
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(items))


def service(name: str, **spec: Any) -> dict[str, Any]:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def claim(volume: str) -> dict[str, Any]:
    spec = {
        "storageClassName": "local",
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return {**kind, "metadata": {"name": volume}, "spec": spec}


def web_pods(volume: str) -> dict[str, Any]:
    """One restricted pod per node, running the machine's own Python."""
    node_folders = {"usr": "/usr", "python": str(PYTHON.parents[1])}
    if node_folders["python"] == "/usr":
        del node_folders["python"]
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in node_folders.items()]
    mounts = [
        {"name": name, "mountPath": path, "readOnly": True} for name, path in node_folders.items()
    ]
    container = {
        "name": "main",
        "image": HOST_IMAGE,
        "command": [str(PYTHON), "-c", SERVE_OWN_NAME],
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
        "volumeMounts": [*mounts, {"name": "data", "mountPath": "/data"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            *volumes,
            {"name": "data", "persistentVolumeClaim": {"claimName": volume}},
        ],
        "containers": [container],
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template},
    }


def traces(directory: Path) -> list[str]:
    """Everything on this machine that belongs to the cluster in `directory`."""
    identity = rundir.identity(directory.name, directory.resolve())
    namespaces = [str(path) for path in Path("/run/netns").glob(f"{identity}*")]
    groups = [str(path) for path in Path("/sys/fs/cgroup").rglob(identity)]
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if identity in line]
    files = [str(directory)] if directory.exists() else []
    alive = [command for command in command_lines() if str(directory) in command]
    return namespaces + groups + mounts + files + alive


def command_lines() -> Iterator[str]:
    """The command lines of all processes; one that has ended but was not waited for has none."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield file.read_text(errors="replace").replace("\0", " ")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster("test-local")
    try:
        started.up(nodes=3)
        yield started
    finally:
        started.down()


def test_restricted_pods_reach_each_other_the_api_and_a_shared_volume_only(
    cluster: Cluster,
) -> None:
    nodes = ["node-1", "node-2", "node-3"]
    cluster.create_volume("shared")
    headless = service("web-pods", clusterIP="None", publishNotReadyAddresses=True)
    apply(cluster, claim("shared"), service("web"), headless, web_pods("shared"))
    cluster.kubectl("rollout", "status", "daemonset/web", "--timeout=60s")
    pods = cluster.kubectl("get", "pods", "--selector=app=web", "--output=name").split()

    def view(pod: str) -> dict[str, Any]:
        return dict(json.loads(cluster.kubectl("exec", pod, "--", PYTHON, "-c", ASK_AROUND)))

    expected = {
        "user": 65532,
        "answered": nodes,
        "addresses": 3,
        "api": True,
        "volume": nodes,
        "root": "Read-only file system",
        "outside": "Network is unreachable",
    }
    assert [view(pod) for pod in pods] == [expected] * 3
    through_api_server = "/api/v1/namespaces/default/services/web:80/proxy/"
    assert cluster.kubectl("get", f"--raw={through_api_server}") in nodes


@pytest.mark.parametrize(
    ("fail", "repair"),
    [(Node.power_off, Node.power_on), (Node.pull_cable, Node.plug_cable)],
    ids=["power", "cable"],
)
def test_node_lost_and_brought_back_is_not_ready_and_then_ready(
    cluster: Cluster, fail: Callable[[Node], None], repair: Callable[[Node], None]
) -> None:
    node = cluster.node("node-2")
    fail(node)
    path = '{.status.conditions[?(@.type=="Ready")].status}'

    def condition() -> str:
        return cluster.kubectl("get", "node", "node-2", f"--output=jsonpath={path}")

    wait_until(lambda: condition() == "Unknown", "node-2 to be missed", 40, 0.5)
    repair(node)
    wait_until(lambda: condition() == "True", "node-2 to be Ready again", 40, 0.5)


def test_node_added_and_removed_is_seen_and_forgotten(cluster: Cluster) -> None:
    cluster.node("node-4").power_on()
    cluster.await_ready()
    with_it = cluster.kubectl("get", "nodes", "--output=name")
    cluster.node("node-4").remove()

    assert "node/node-4" in with_it
    assert "node/node-4" not in cluster.kubectl("get", "nodes", "--output=name")


def test_second_cluster_beside_the_first_comes_and_goes_without_touching_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    beside = Cluster("beside", tmp_path / "beside")
    own_pods = cluster.kubectl("get", "pods", "--output=name")
    try:
        beside.up(nodes=1)
        beside.kubectl("create", "namespace", "only-here")

        assert "only-here" not in cluster.kubectl("get", "namespaces", "--output=name")
    finally:
        beside.down()

    assert traces(beside.directory) == []
    cluster.await_ready()
    assert cluster.kubectl("get", "pods", "--output=name") == own_pods


def test_down_after_its_directory_was_deleted_still_leaves_nothing(tmp_path: Path) -> None:
    cluster = Cluster("deleted", tmp_path / "deleted")
    cluster.up(nodes=1)
    shutil.rmtree(cluster.directory, ignore_errors=True)
    left = traces(cluster.directory)

    cluster.down()
    shutil.rmtree(cluster.directory, ignore_errors=True)  # what was written during the deletion

    assert any("etcd" in line for line in left)
    assert traces(cluster.directory) == []


@pytest.mark.parametrize("last_started", ["kube-apiserver", "node-1"])
def test_up_killed_half_way_is_cleaned_up_by_the_next(tmp_path: Path, last_started: str) -> None:
    cluster = Cluster("killed", tmp_path / "killed")
    options = ["--name", cluster.name, "--dir", str(cluster.directory), "--nodes", "1"]
    command = [sys.executable, "-m", "tests.cluster", "up", *options]
    with subprocess.Popen(command, cwd=ROOT) as starting:
        wait_until(
            lambda: last_started in processes.recorded(cluster.directory), last_started, 60, 0.01
        )
        starting.send_signal(signal.SIGKILL)
    left = traces(cluster.directory)
    try:
        cluster.up(nodes=1)
        assert cluster.node("node-1").is_ready()
    finally:
        cluster.down()

    assert any("etcd" in line for line in left)
    assert traces(cluster.directory) == []
