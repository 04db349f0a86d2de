"""The table of injected faults, whom one strikes, and `pretrain faults` with a stand-in cluster."""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from pretrain_llm.contract import codec, environment, symptoms
from pretrain_llm.contract import injection as in_pod
from pretrain_llm.contract.status import AgentStatus, StatusDocument
from pretrain_llm.faults import acts
from pretrain_operator import faults, injection
from pretrain_operator.cli import faults as command
from pretrain_operator.cluster import ObjectList
from pretrain_operator.injection import InjectionError, InPod, Target
from pretrain_operator.manifests import inputs

from .runs import demo_body, demo_run
from .test_manifests_golden import made

DOCS = Path(__file__).parents[2] / "docs" / "failure-handling.md"


def test_table_in_the_docs_is_the_codes():
    cells = r"\| `([\w-]+)` \| (.+) \| (\S+) \| (\S+) \| (\S+) \| (.*) \|"
    section = DOCS.read_text().partition("## Injecting faults")[2]
    told = [match.groups() for match in re.finditer(cells, section)]
    expected = []
    for kind in injection.TABLE:
        row = kind.row
        fault = (f"`{row.name}`", row.level, row.budget) if row else ("–", "–", "–")
        expected.append((kind.name, kind.words, *fault, kind.outcome))
    assert told == expected


def test_expected_classes_are_of_the_fault_table_and_kinds_are_named_once():
    classes = {row.name for row in faults.TABLE}
    assert {kind.fault_class for kind in injection.TABLE} - {None} <= classes
    kinds = [kind.name for kind in injection.TABLE]
    assert len(kinds) == len(set(kinds))


def test_kinds_in_pods_are_those_that_pods_know():
    used = {
        action.kind
        for kind in injection.TABLE
        for action in kind.actions
        if isinstance(action, InPod)
    }
    assert used == set(in_pod.KINDS)


def test_unknown_kind_names_the_known_and_the_nearest():
    with pytest.raises(InjectionError, match=r"did you mean worker-sigkill\? Known are .*hold-gil"):
        injection.kind("worker-sigkil")


# Targets


def document(*agents: AgentStatus) -> StatusDocument:
    return StatusDocument("demo", 1, 0.0, 0.0, agents=agents)


def agent(slot: int, rank: int | None) -> AgentStatus:
    return AgentStatus(f"demo-{slot}", slot, f"node-{slot}", "Running", 0.0, rank)


ROUND = document(agent(0, 1), agent(1, None), agent(2, 0))


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({}, Target("demo-0", "node-0", 8)),
        ({"rank": 3}, Target("demo-2", "node-2", 3)),
        ({"rank": 15}, Target("demo-0", "node-0", 15)),
        ({"pod": "demo-2"}, Target("demo-2", "node-2", 0)),
        ({"node": "node-2", "rank": 7}, Target("demo-2", "node-2", 7)),
    ],
)
def test_target_is_the_wanted_member_or_the_last(wishes, expected):
    assert injection.targets(ROUND, 8, **wishes) == (expected,)


def test_targets_of_two_nodes_are_the_last_two():
    two = injection.targets(ROUND, 8, count=2)
    assert [target.node for target in two] == ["node-2", "node-0"]


@pytest.mark.parametrize("wishes", [{"rank": 16}, {"pod": "demo-1"}, {"count": 3}])
def test_target_that_is_not_in_the_round_is_refused_with_the_members(wishes):
    with pytest.raises(InjectionError, match=r"demo-2 \(rank 0, node-2\), demo-0 \(rank 8"):
        injection.targets(ROUND, 8, **wishes)


# What allows it


def test_allowing_it_is_a_new_attempt_whose_pods_know():
    plain, allowing = demo_run(), demo_run(recovery__faultInjection=True)
    assert inputs.training_digest(plain.spec, 0) != inputs.training_digest(allowing.spec, 0)
    own = plain.spec.nodes.template
    assert inputs.stage_digest(plain.spec, own, 0) == inputs.stage_digest(allowing.spec, own, 0)
    objects = made(demo_body(training__steps=20, recovery__faultInjection=True))
    pod = objects["Job-demo-train-1.yaml"]["spec"]["template"]["spec"]
    allowed = {"name": environment.FAULT_INJECTION, "value": "true"}
    assert allowed in pod["containers"][0]["env"]


# The command


class Recorder:
    """Stands where `Cluster` does."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    async def through_service(self, _namespace: str, service: str, path: str) -> Any:
        assert (service, path) == ("demo-coordinator:8080", "/status")
        return codec.encode(ROUND)

    async def execute(self, _namespace: str, pod: str, _container: str, arguments: Any) -> str:
        self.done.append(("execute", pod, arguments[3], arguments[4]))
        return "done\n"

    async def patch(self, body: Any) -> None:
        said = {key: value for key, value in body.items() if key not in ("kind", "metadata")}
        self.done.append(("patch", body["kind"], body["metadata"]["name"], said))

    async def patch_status(self, body: Any) -> None:
        (condition,) = body["status"]["conditions"]
        assert condition.pop("lastTransitionTime")
        await self.patch(body)

    async def delete(self, kind: str, _namespace: str, name: str, *, grace_seconds: Any) -> None:
        self.done.append(("delete", kind, name, grace_seconds))

    async def evict(self, _namespace: str, pod: str) -> None:
        self.done.append(("evict", pod))

    async def list(self, _kind: str, namespace: str, *, label_selector: str) -> ObjectList:
        self.done.append(("list", namespace, label_selector))
        return ObjectList(({"metadata": {"name": "found"}},), "1")


def injected(kind: str, *, allowed: bool = True, template: str | None = None) -> list[Any]:
    options = argparse.Namespace(
        run="demo", namespace="llm", kind=kind, rank=None, pod=None, node=None, seconds=1.0,
        steps=20, template=template, operator_namespace="system",
    )  # fmt: skip
    recovery = {"faultInjection": True} if allowed else {}
    run = {"metadata": {"name": "demo"}, "spec": {"recovery": recovery, "nodes": {}}}
    cluster = Recorder()
    asyncio.run(command.inject(cluster, options, run))
    return cluster.done


def condition(**fields: str) -> dict[str, Any]:
    return {"status": {"conditions": [{**fields, "status": "True"}]}}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("worker-sigkill", [("execute", "demo-0", "worker-sigkill", "--rank=1")]),
        ("pod-deleted", [("delete", "Pod", "demo-0", None)]),
        (
            "pod-preempted",
            [
                (
                    "patch",
                    "Pod",
                    "demo-0",
                    condition(
                        type="DisruptionTarget",
                        reason="PreemptionByScheduler",
                        message="preempted (injected)",
                    ),
                ),
                ("delete", "Pod", "demo-0", None),
            ],
        ),
        (
            "node-drained",
            [("patch", "Node", "node-0", {"spec": {"unschedulable": True}}), ("evict", "demo-0")],
        ),
        (
            "node-gpu-ecc",
            [
                (
                    "patch",
                    "Node",
                    "node-0",
                    condition(
                        type="GpuMemWatch",
                        reason="Injected",
                        message="uncorrectable ECC error (injected)",
                    ),
                ),
                ("execute", "demo-0", "worker-sigabrt", "--rank=1"),
            ],
        ),
        (
            "operator-killed",
            [
                ("list", "system", "app.kubernetes.io/name=pretrain-operator"),
                ("delete", "Pod", "found", 0),
            ],
        ),
        ("run-suspended", [("patch", "PretrainRun", "demo", {"spec": {"suspend": True}})]),
    ],
)
def test_kind_is_injected_by_its_actions(kind: str, expected: list[Any]) -> None:
    assert injected(kind) == expected


def test_command_gets_action_and_each_node(tmp_path: Path) -> None:
    injected("two-nodes-power-off", template=f"touch '{tmp_path}/{{action}} {{target}}'")
    assert {path.name for path in tmp_path.iterdir()} == {"off node-0", "off node-2"}


def test_command_that_fails_is_told_with_its_arguments() -> None:
    with pytest.raises(InjectionError, match="exit code 1 of: false kube-apiserver"):
        injected("api-server-down", template="false {target}")


def test_what_must_be_undone_is_told_for_the_node(capsys: pytest.CaptureFixture[str]) -> None:
    injected("node-drained")
    assert "undo with: kubectl uncordon node-0" in capsys.readouterr().out


def test_run_that_does_not_allow_it_is_refused_with_the_field() -> None:
    with pytest.raises(InjectionError, match=r"spec\.recovery\.faultInjection of demo is false"):
        injected("worker-sigkill", allowed=False)


def test_kind_that_no_api_can_do_needs_a_command() -> None:
    with pytest.raises(InjectionError, match="node-power-off needs --command"):
        injected("node-power-off")


# What programs say in the pods is what the fault table reads


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (acts.CUDA_ERROR, "DeviceError"),
        (acts.XID, "DeviceBroken"),
        (acts.WATCHDOG, "CollectiveTimeout"),
    ],
)
def test_texts_that_are_injected_are_known_to_the_fault_table(text, expected):
    seen = faults.Evidence("WorkerExit", signal=6, symptom=symptoms.symptom(text))
    assert faults.fault(seen).row.name == expected
