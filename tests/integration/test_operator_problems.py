"""What users get wrong: each is told in the run's conditions, with the value and what to do."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.results import StageError
from pretrain_operator.cluster import ApiError
from tests.integration.harness import Api, Coordinators, Operator, eventually
from tests.integration.walk import Walk, claim, demo_run


@pytest.fixture
def walk(operator: Operator, api: Api, coordinators: Coordinators, namespace: str) -> Walk:
    return Walk(api, coordinators, namespace)


def test_claim_that_is_not_there_is_waited_for(walk: Walk) -> None:
    walk.api.create(demo_run(walk.namespace))
    walk.until_state("StorageNotFound")
    message = walk.condition()["message"]
    assert "spec.storage.claimName demo" in message
    assert "create it" in message
    walk.provide_volume()
    walk.api.create(claim(walk.namespace))
    walk.until_state("PreparingData")


def test_image_that_cannot_be_pulled_is_told_and_heals(walk: Walk) -> None:
    walk.begin()
    (pod,) = walk.until_pods("data")
    declared = pod["spec"]["containers"][0]
    waiting = {"reason": "ImagePullBackOff", "message": f"no such image {declared['image']}"}
    status = {
        "name": declared["name"],
        "image": declared["image"],
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    walk.api.put_status(pod, containerStatuses=[status])
    walk.until_state("ImagePullFailed")
    assert declared["image"] in walk.condition()["message"]
    assert "template.image" in walk.condition()["message"]
    walk.start("data")
    walk.until_state("PreparingData")


def test_run_whose_name_is_too_long_for_its_children_is_rejected(api: Api, namespace: str) -> None:
    with pytest.raises(ApiError) as caught:
        api.create(demo_run(namespace, "x" * 41))
    assert caught.value.code == 422
    assert "40" in caught.value.message


def test_bad_input_of_a_stage_stops_the_run_with_the_stages_own_words(walk: Walk) -> None:
    walk.begin()
    error = StageError(
        message="there is no file",
        kind="InputError",
        exit_code=exit_codes.BAD_INPUT,
        field="data.sources[0].path",
        value="corpus/nothing.jsonl",
        remedy="Correct the path.",
    )
    walk.fail("data", error)
    walk.until_state("BadInput")
    assert walk.condition()["status"] == "False"
    message = walk.condition()["message"]
    for part in ("data.sources[0].path", "corpus/nothing.jsonl", "Correct the path."):
        assert part in message


def test_child_that_the_api_server_refuses_is_told_in_its_words_and_heals(walk: Walk) -> None:
    broken = {"volumes": [{"name": "Not A Name", "emptyDir": {}}]}
    data = {**demo_run(walk.namespace)["spec"]["data"], "template": broken}
    walk.begin(data=data)

    def refused() -> bool:
        return walk.condition("ChildrenAccepted").get("status") == "False"

    eventually(refused, "condition ChildrenAccepted=False")
    message = walk.condition("ChildrenAccepted")["message"]
    assert "Job demo-data" in message
    assert "Not A Name" in message
    patch = {"spec": {"data": {"template": {"volumes": []}}}}
    walk.api.patch("pretrainrun", walk.namespace, walk.name, patch)
    walk.until_pods("data")
    eventually(lambda: not refused(), "condition ChildrenAccepted=True")
