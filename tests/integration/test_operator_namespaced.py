"""An operator that may act in one namespace only, and may not read nodes."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import ControlPlane
from tests.integration.harness import Api, Coordinators, Operator, eventually
from tests.integration.walk import Walk


def test_namespaced_operator_serves_its_namespace_and_no_other(
    operator: Operator,
    api: Api,
    control_plane: ControlPlane,
    coordinators: Coordinators,
    namespace: str,
    tmp_path: Path,
) -> None:
    values = (
        f"--set=watchNamespaces={{{namespace}}}",
        "--set=rbac.nodes=false",
        "--set=rbac.aggregateToUserRoles=false",
    )
    narrow = Operator(api, control_plane, coordinators.url, tmp_path, *values, release="narrow")
    operator.kill()
    try:
        narrow.start()
        other = Walk(api, coordinators, "default")
        other.begin()
        Walk(api, coordinators, namespace).to_training()
        assert other.status == {}  # made first, and not seen
        assert narrow.api_calls("list") == 6  # a call for each kind, no nodes
        assert "403" not in str(narrow.metrics().keys())
    finally:
        narrow.kill()
        operator.start()
    eventually(lambda: other.condition(), "first pass of the operator of the whole cluster")
