"""PretrainRuns on a real API server, by plain HTTP: fast enough for thousands of dry runs."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster import ControlPlane

CRD_FILE = Path(__file__).parents[2] / "charts/pretrain-operator/files/pretrainruns.yaml"
_RUNS = "/apis/pretrain.dev/v1alpha1/namespaces/{namespace}/pretrainruns"

Object = dict[str, Any]


def install(control_plane: ControlPlane) -> None:
    """Returns once the API server serves the CRD."""
    arguments = ("--server-side", "--force-conflicts", "--field-manager=pretrain-operator")
    control_plane.kubectl("apply", *arguments, "-f", CRD_FILE)
    name = "crd/pretrainruns.pretrain.dev"
    control_plane.kubectl("wait", "--for=condition=Established", name, "--timeout=30s")


class RunClient:
    """One connection; not to be shared between threads."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        server = urlsplit(document["clusters"][0]["cluster"]["server"])
        assert server.hostname is not None
        self._path = _RUNS.format(namespace=namespace)
        context = _tls(document)
        self._connection = http.client.HTTPSConnection(
            server.hostname, server.port, context=context, timeout=30
        )

    def create(self, body: Object, *, dry_run: bool = True) -> tuple[int, Object]:
        query = "?dryRun=All" if dry_run else ""
        return self._send("POST", f"{self._path}{query}", json.dumps(body), "application/json")

    def patch(self, name: str, patch: Object, *, status: bool = False) -> tuple[int, Object]:
        """A merge patch; of the spec as a dry run, of the status for good."""
        path = f"{self._path}/{name}" + ("/status" if status else "?dryRun=All")
        return self._send("PATCH", path, json.dumps(patch), "application/merge-patch+json")

    def close(self) -> None:
        self._connection.close()

    def _send(self, method: str, path: str, text: str, kind: str) -> tuple[int, Object]:
        self._connection.request(method, path, text.encode(), {"Content-Type": kind})
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())


@contextlib.contextmanager
def client(control_plane: ControlPlane, namespace: str) -> Iterator[RunClient]:
    opened = RunClient(control_plane.kubeconfig, namespace)
    try:
        yield opened
    finally:
        opened.close()


def _tls(document: Object) -> ssl.SSLContext:
    """The administrator's certificate, which a kubeconfig holds inline."""
    user, cluster = document["users"][0]["user"], document["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as pair:
        for part in ("client-certificate-data", "client-key-data"):
            pair.write(base64.b64decode(user[part]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context
