"""Which nodes a run leaves, when it may come back, and what the Nodes say of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pretrain_llm.contract.status import StatusDocument, Straggler
from pretrain_operator import exclusion, faults, names
from pretrain_operator.api.status import ExcludedNode, IncidentStatus, RunStatus, Suspect
from pretrain_operator.case import Case
from pretrain_operator.config import run_config
from pretrain_operator.exclusion import NodeMarks
from pretrain_operator.observed import Observed
from pretrain_operator.settings import NodeExclusion
from pretrain_operator.times import timestamp

from .runs import demo_run

NOW = 1_000_000.0
HOUR = 3600.0
DAY = 24 * HOUR
BY_NAME = NodeExclusion()
BY_LABEL = NodeExclusion(marks="Label")
FROM_RUN = names.excluded_from_label("run-uid")


def incident(fault_class: str, node: str | None = "a", ago: float = 0.0) -> IncidentStatus:
    return IncidentStatus(
        attempt=1,
        round=1,
        time=timestamp(NOW - ago),
        fault_class=fault_class,
        cause="",
        budget="Infrastructure",
        level="WorkerRestart",
        suspect=Suspect(node=node),
    )


def node(name: str = "a", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "labels": {"zone": "z", **labels}}
    return {"kind": "Node", "metadata": metadata, "spec": {}}


def case(*nodes: dict[str, Any], after: int = 3, now: float = NOW) -> Case:
    run = demo_run(recovery__excludeNodeAfter=after)
    assert run.spec is not None
    seen = Observed(now, nodes={item["metadata"]["name"]: item for item in nodes})
    return Case(run, run.spec, run_config(run), seen)


def excluded(told: Case, *incidents: IncidentStatus, **status: Any) -> list[str]:
    before = RunStatus(incidents=incidents, **status)
    return [item.name for item in exclusion.with_exclusions(told, before, BY_NAME).excluded_nodes]


def entry(name: str = "a", until: float = NOW + HOUR, since: float = NOW - HOUR) -> ExcludedNode:
    return ExcludedNode(
        name=name, since=timestamp(since), until=timestamp(until), reason="3 faults"
    )


# Of one run


@pytest.mark.parametrize(
    ("action", "slow", "left", "names_of_nodes"),
    [
        ("Report", ["a"], [], []),
        ("Replace", [], [], []),
        ("Replace", ["a", "b"], [], ["a"]),
        pytest.param("Replace", ["a", "b"], ["a"], ["a"], id="a still leaves: b waits"),
        ("Replace", ["b"], ["a"], ["a", "b"]),
        pytest.param("Replace", [""], [], [], id="a node that is not known"),
    ],
)
def test_node_of_the_slowest_rank_is_left_one_at_a_time(action, slow, left, names_of_nodes):
    run = demo_run(recovery__stragglers={"action": action})
    ranks = tuple(Straggler(n, f"pod-{n}", name, 9.0, 2.0, 1.0) for n, name in enumerate(slow))
    document = StatusDocument("demo", 1, NOW, NOW - HOUR, stragglers=ranks)
    told = Case(run, run.spec, run_config(run), Observed(NOW, coordinator=document))
    known = tuple(entry(name) for name in left)
    assert excluded(told, attempt=1, excluded_nodes=known) == names_of_nodes


@pytest.mark.parametrize(
    ("told", "names_of_nodes"),
    [
        ([], []),
        ([incident("NodeLost"), incident("NodeLost")], []),
        ([incident("NodeLost"), incident("Hang"), incident("AgentLost")], ["a"]),
        ([incident("NodeLost"), incident("NodeLost"), incident("NodeLost", "b")], []),
        ([incident("DeviceBroken")], ["a"]),
        ([incident("NodeUnhealthy", "b"), incident("DeviceBroken")], ["b", "a"]),
        ([incident("NodeUnhealthy", None)], []),
        ([incident("WorkerKilled")] * 9, []),
        ([incident("AskedToLeave")] * 9, []),
        ([incident("ARowThatIsNoMore")] * 9, []),
        ([incident("NodeLost", ago=DAY), *[incident("NodeLost")] * 2], []),
        ([incident("NodeLost", ago=DAY - 1), *[incident("NodeLost")] * 2], ["a"]),
    ],
)
def test_faults_that_blame_a_node_exclude_it(told: list[Any], names_of_nodes: list[str]):
    assert excluded(case(), *told) == names_of_nodes


def test_no_node_is_excluded_where_the_spec_says_so():
    assert excluded(case(after=0), incident("DeviceBroken"), excluded_nodes=(entry(),)) == []


def test_exclusion_lasts_until_its_time_and_the_faults_that_led_to_it_do_not_count_again():
    faults_of_a = [incident("NodeLost", ago=ago) for ago in (2 * HOUR, HOUR, 0.0)]
    (made,) = exclusion.with_exclusions(
        case(), RunStatus(incidents=tuple(faults_of_a)), BY_NAME
    ).excluded_nodes
    assert (made.since, made.until) == (timestamp(NOW), timestamp(NOW + DAY))
    assert made.reason == "3 faults: NodeLost"
    held = {"excluded_nodes": (made,)}
    assert excluded(case(now=NOW + DAY - 1), *faults_of_a, **held) == ["a"]
    assert excluded(case(now=NOW + DAY), *faults_of_a, **held) == []


def test_excluded_nodes_are_never_more_than_the_status_holds():
    told = [incident("DeviceBroken", f"n{number}") for number in range(20)]
    assert len(excluded(case(), *told)) == 16


def test_repaired_node_is_back_at_once():
    mended = {names.REPAIRED_LABEL: str(int(NOW) - 10)}
    told = [incident("DeviceBroken", ago=60.0)]
    assert excluded(case(node(**mended)), *told, excluded_nodes=(entry(),)) == []
    assert excluded(case(node(**mended)), *told, incident("DeviceBroken")) == ["a"]


def test_one_fault_on_a_node_that_all_runs_avoid_is_enough():
    avoided = {names.EXCLUDED_LABEL: str(int(NOW) + 60)}
    (made,) = exclusion.with_exclusions(
        case(node(**avoided)), RunStatus(incidents=(incident("Hang"),)), BY_NAME
    ).excluded_nodes
    assert made.scope == "AllRuns"
    over = {names.EXCLUDED_LABEL: str(int(NOW))}
    assert excluded(case(node(**over)), incident("Hang")) == []


@pytest.mark.parametrize("name", ["Preempted", "AskedToLeave", "PodLost", "NodeCordoned"])
def test_what_somebody_decided_blames_no_node(name: str):
    assert faults.blame(name) == "Never"


# On the Nodes


def marks(*nodes: dict[str, Any], settings: NodeExclusion = BY_LABEL, **runs: RunStatus) -> Any:
    return exclusion.node_marks(runs, nodes, settings, NOW)


def of_runs(*counts: int) -> dict[str, RunStatus]:
    told = [RunStatus(incidents=(incident("NodeLost", ago=60.0),) * count) for count in counts]
    return {f"run-{number}": status for number, status in enumerate(told)}


def test_node_excluded_from_a_run_has_its_label_until_then():
    status = RunStatus(excluded_nodes=(entry(),))
    (mark,) = marks(node(), node("b"), **{"run-uid": status})
    until = str(int(NOW + HOUR))
    assert mark == NodeMarks("a", "uid-a", {FROM_RUN: until})
    assert marks(node(**{FROM_RUN: until}), **{"run-uid": status}) == []


@pytest.mark.parametrize(
    "runs",
    [{}, {"run-uid": RunStatus()}, {"run-uid": RunStatus(excluded_nodes=(entry(until=NOW),))}],
)
def test_label_of_a_run_that_is_over_or_gone_goes(runs: dict[str, RunStatus]):
    (mark,) = marks(node(**{FROM_RUN: "1"}), **runs)
    assert mark.labels == {}


def test_faults_of_all_runs_together_exclude_a_node_from_all():
    assert marks(node(), **of_runs(2, 2)) == []
    (mark,) = marks(node(), **of_runs(2, 3))
    assert mark.labels == {names.EXCLUDED_LABEL: str(int(NOW + DAY))}
    never = NodeExclusion(marks="Label", faults_of_all_runs=0)
    assert marks(node(), settings=never, **of_runs(9)) == []


def test_exclusion_from_all_runs_outlives_them_and_ends_in_time_or_by_repair():
    lasting = {names.EXCLUDED_LABEL: str(int(NOW + HOUR))}
    assert marks(node(**lasting)) == []
    for labels in (
        {names.EXCLUDED_LABEL: str(int(NOW))},
        {names.EXCLUDED_LABEL: "by hand"},
        {**lasting, names.REPAIRED_LABEL: str(int(NOW) - 5)},
    ):
        (mark,) = marks(node(**labels), **of_runs(0))
        assert mark.labels == {}
    mended = node(**{names.REPAIRED_LABEL: str(int(NOW) - 5)})
    assert marks(mended, **of_runs(9)) == []


def test_taint_is_for_nodes_that_all_runs_avoid_and_leaves_others_alone():
    tainting = NodeExclusion(marks="Taint")
    (mark,) = marks(node(), settings=tainting, **of_runs(5))
    assert mark.is_tainted
    (mark,) = marks(node(), settings=tainting, **{"run-uid": RunStatus(excluded_nodes=(entry(),))})
    assert not mark.is_tainted
    taint = {"key": names.EXCLUDED_LABEL, "effect": "NoSchedule"}
    left = {**node(), "spec": {"taints": [taint]}}
    (mark,) = marks(left, settings=tainting)
    assert replace(mark, uid="") == NodeMarks("a", "", {}, False)
