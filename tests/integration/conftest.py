"""One control plane and one operator for all integration tests; a namespace for each test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import ControlPlane
from tests.cluster.control_plane import NodeMonitor
from tests.integration.harness import Api, Coordinators, Kubelets, Operator


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    directory = tmp_path_factory.mktemp("control-plane") / "run"
    # Nothing renews the nodes' leases: their conditions are what a test says.
    monitor = NodeMonitor(grace_period_seconds=86_400)
    with ControlPlane("integration", directory, monitor=monitor) as started:
        yield started


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Iterator[Api]:
    client = Api(control_plane)
    yield client
    client.close()


@pytest.fixture(scope="session")
def kubelets(api: Api) -> Iterator[Kubelets]:
    stand_ins = Kubelets(api)
    yield stand_ins
    stand_ins.close()


@pytest.fixture(scope="session")
def coordinators() -> Iterator[Coordinators]:
    server = Coordinators()
    yield server
    server.close()


@pytest.fixture(scope="session")
def operator(
    api: Api,
    control_plane: ControlPlane,
    coordinators: Coordinators,
    kubelets: Kubelets,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Operator]:
    directory: Path = tmp_path_factory.mktemp("operator")
    process = Operator(api, control_plane, coordinators.url, directory)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> str:
    """Of this test alone. It goes with the control plane."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower())
    name = name[:63].strip("-")
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    api.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    return name
