"""A control plane for what only a real API server can say of the chart."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import ControlPlane
from tests.integration.harness import Api, helm_template, install


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("control-plane") / "run"
    with ControlPlane("charts", directory) as started:
        client = Api(started)
        install(client, helm_template())
        yield client
        client.close()
