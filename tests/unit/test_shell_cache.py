"""The cache joins two streams: watches and the answers to the operator's own writes."""

from __future__ import annotations

from typing import Any

import pytest

from pretrain_operator.cache import ObjectCache, RunKey
from pretrain_operator.observed import ObjectKey

DEMO = RunKey("llm", "demo")
JOB = ObjectKey("Job", "demo-data")


def job(version: int, *, uid: str = "a", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Job",
        "metadata": {
            "name": "demo-data",
            "namespace": "llm",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": {"pretrain.dev/run": "demo"},
            "managedFields": [{"manager": "x"}],
        },
        "status": status,
    }


def pod_on(node: str) -> dict[str, Any]:
    body = job(5)
    metadata = {**body["metadata"], "name": "demo-train-1-0", "uid": "p"}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node}, "status": {}}


def node(version: int, ready: str, heartbeat: str = "") -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": "node-1", "uid": "n", "resourceVersion": str(version)},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}],
            "images": ["many"],
        },
    }


def test_put_of_a_newer_state_wakes_the_run_and_is_kept_without_managed_fields() -> None:
    cache = ObjectCache()
    assert cache.put(job(7)) == {DEMO}
    assert cache.put(job(8, succeeded=1)) == {DEMO}
    found = cache.children(DEMO)[JOB]
    assert found["status"] == {"succeeded": 1}
    assert "managedFields" not in found["metadata"]


def test_event_older_than_our_own_write_changes_and_wakes_nothing() -> None:
    cache = ObjectCache()
    cache.put(job(10, succeeded=1))  # the answer to our write
    assert cache.put(job(9)) == set()  # an event that was under way
    assert cache.put(job(10, succeeded=1)) == set()  # our write, by the watch
    assert cache.children(DEMO)[JOB]["status"] == {"succeeded": 1}


def test_resource_versions_compare_as_numbers_not_as_text() -> None:
    cache = ObjectCache()
    cache.put(job(9))
    assert cache.put(job(10)) == {DEMO}


def test_object_that_is_gone_stays_gone_when_an_older_event_or_listing_arrives() -> None:
    cache = ObjectCache()
    cache.put(job(7))
    assert cache.remove(job(7)) == {DEMO}
    assert cache.put(job(8)) == set()  # its last modification, by the watch
    assert cache.replace("Job", None, [job(8)], "8") == set()  # listed before it went
    assert cache.children(DEMO) == {}
    assert cache.put(job(12, uid="b")) == {DEMO}  # a new object of the same name


def test_uids_of_gone_objects_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pretrain_operator.cache._REMEMBERED_UIDS", 2)
    cache = ObjectCache()
    for uid in "abc":
        cache.remove(job(1, uid=uid))
    assert cache.put(job(2, uid="c")) == set()
    assert cache.put(job(2, uid="a")) == {DEMO}


def test_deletion_of_an_older_namesake_leaves_the_new_object() -> None:
    cache = ObjectCache()
    cache.put(job(12, uid="b"))
    assert cache.remove(job(11, uid="a")) == set()
    assert JOB in cache.children(DEMO)


def test_replace_takes_out_what_the_list_lacks_but_not_what_is_newer() -> None:
    cache = ObjectCache()
    cache.put(job(7))
    assert cache.replace("Job", None, [], "6") == set()  # made after the list
    assert cache.replace("Job", "other", [], "9") == set()  # of another namespace
    assert cache.replace("Job", "llm", [], "9") == {DEMO}
    assert cache.children(DEMO) == {}


def test_replace_with_what_is_known_touches_nothing() -> None:
    cache = ObjectCache()
    cache.put(job(7))
    assert cache.replace("Job", None, [job(7)], "9") == set()


def test_node_wakes_the_runs_on_it_only_when_a_condition_changes() -> None:
    cache = ObjectCache()
    cache.put(pod_on("node-1"))
    assert cache.put(node(1, "True")) == {DEMO}
    assert cache.put(node(2, "True", heartbeat="later")) == set()
    assert cache.put(node(3, "Unknown")) == {DEMO}
    assert cache.remove(node(4, "Unknown")) == {DEMO}


def test_node_is_kept_without_what_no_decision_reads() -> None:
    cache = ObjectCache()
    cache.put(node(1, "True"))
    assert "images" not in cache.nodes(["node-1", "node-2"])["node-1"]["status"]


def test_run_belongs_to_itself_and_is_no_child() -> None:
    cache = ObjectCache()
    body = {**job(3), "kind": "PretrainRun"}
    body["metadata"] = {**body["metadata"], "name": "demo"}
    assert cache.put(body) == {DEMO}
    assert cache.runs() == [DEMO]
    assert cache.children(DEMO) == {}
    assert cache.run(DEMO) is not None
