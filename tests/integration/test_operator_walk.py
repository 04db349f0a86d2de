"""A run on a real control plane, from nothing to a model that is served, and away again."""

from __future__ import annotations

import pytest

from tests.integration.harness import Api, Coordinators, Operator, eventually
from tests.integration.walk import Walk


@pytest.fixture
def walk(operator: Operator, api: Api, coordinators: Coordinators, namespace: str) -> Walk:
    return Walk(api, coordinators, namespace)


def test_run_walks_from_text_to_a_served_model(walk: Walk) -> None:
    walk.begin()
    walk.until_state("PreparingData")
    walk.finish("data", "Data")
    walk.until_state("Starting")
    walk.start("coordinator")
    walk.start("training", 2)
    walk.says(40)
    walk.until_state("Training")
    walk.finish_training()
    walk.until_state("Exporting")
    walk.finish("export", "Export", step=240)
    walk.until_state("PostTraining")
    walk.finish("postTraining", "PostTraining", name="sft")
    walk.until_state("Deploying")
    walk.start("serving")
    walk.until_state("Serving")

    status = walk.status
    assert [made["stage"] for made in status["artifacts"]] == [
        "Data",
        "Training",
        "Export",
        "PostTraining",
    ]
    assert all("finishedAt" in stage for stage in status["stages"])
    assert status["serving"]["readyReplicas"] == 1
    assert status["training"]["step"] == 240
    assert walk.pods("coordinator") == []
    assert "StageStarted" in walk.reasons_of_events()


def test_suspended_run_stops_its_pods_and_goes_on_with_the_same_attempt(walk: Walk) -> None:
    walk.to_training()
    uid = walk.job("train-1")["metadata"]["uid"]  # type: ignore[index]
    walk.api.patch("pretrainrun", walk.namespace, walk.name, {"spec": {"suspend": True}})
    walk.until_state("Suspended")
    assert walk.pods("training") == []
    eventually(lambda: not walk.pods("coordinator"), "end of the coordinator")

    walk.api.patch("pretrainrun", walk.namespace, walk.name, {"spec": {"suspend": False}})
    walk.start("coordinator")
    walk.start("training", 2)
    walk.says(60)
    walk.until_state("Training")
    assert walk.job("train-1")["metadata"]["uid"] == uid  # type: ignore[index]
    assert walk.status["attempt"] == 1


def test_deleted_run_takes_its_children_along_and_leaves_its_claim(walk: Walk) -> None:
    walk.to_training()
    walk.api.delete("PretrainRun", walk.namespace, walk.name)

    def children() -> list[str]:
        kinds = ("Job", "Deployment", "Service", "ConfigMap", "Pod")
        return [
            f"{body['kind']}/{body['metadata']['name']}"
            for kind in kinds
            for body in walk.api.list(kind, walk.namespace, run=walk.name)
        ]

    eventually(lambda: not children(), "end of all children")
    assert walk.api.get("PersistentVolumeClaim", walk.namespace, "demo") is not None


def test_run_makes_the_claim_that_it_asks_for_and_does_not_own_it(walk: Walk) -> None:
    walk.provide_volume("made")
    walk.begin(storage={"claimName": "made", "create": {"size": "2Gi"}})
    walk.until_pods("data")
    claim = walk.api.get("PersistentVolumeClaim", walk.namespace, "made")
    assert claim is not None
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"
    assert "ownerReferences" not in claim["metadata"]
