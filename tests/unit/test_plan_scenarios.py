"""What happens to a run, one scenario a test: suspended, edited, hit, starved, misspelt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from pretrain_llm.contract import codec, exit_codes
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.results import StageError, TerminationMessage
from pretrain_llm.contract.status import Incident
from pretrain_operator import conditions
from pretrain_operator.api.spec import RunSpec
from pretrain_operator.api.status import Condition
from pretrain_operator.manifests.inputs import training_digest
from pretrain_operator.observed import ObjectKey

from .runs import demo_body, demo_run
from .simulation import Simulation, cluster, fail_stage, kill_worker, power_off_node
from .world import SETTINGS, Operator, World, changed

MAX_TICKS = 60
STEPS = 60  # six ticks


def started(**changes: Any) -> Simulation:
    return cluster(World(demo_body(**{"training__steps": STEPS, **changes})))


def settle(simulation: Simulation) -> None:
    Operator(simulation.world).settle()


def until(simulation: Simulation, is_so: Callable[[], object]) -> None:
    for _ in range(MAX_TICKS):
        settle(simulation)
        if is_so():
            return
        simulation.tick()
    raise AssertionError(f"not within {MAX_TICKS} ticks: {simulation.world.status}")


def state(simulation: Simulation) -> str | None:
    return conditions.state(simulation.world.status)


def summary(simulation: Simulation) -> Condition:
    found = conditions.condition(simulation.world.status, conditions.SUCCEEDED)
    assert found is not None
    return found


def step(simulation: Simulation) -> int:
    training = simulation.world.status.training
    return training.step if training else 0


def until_state(simulation: Simulation, *wanted: str) -> None:
    until(simulation, lambda: state(simulation) in wanted)


@cache
def _walked_to(wanted: str, steps: int = 0, **changes: Any) -> Simulation:
    simulation = started(**changes)
    until(simulation, lambda: state(simulation) == wanted and step(simulation) >= steps)
    return simulation


# Walked to once: what follows is done to copies


def starting_run() -> Simulation:
    """With the Job of the first attempt, and no round yet."""
    return _walked_to(conditions.STARTING).copy()


def training_run(**changes: Any) -> Simulation:
    """At step 30."""
    return _walked_to(conditions.TRAINING, 30, **changes).copy()


def deploying_run() -> Simulation:
    return _walked_to(conditions.DEPLOYING).copy()


def serving_run() -> Simulation:
    return _walked_to(conditions.SERVING).copy()


def job_names(simulation: Simulation) -> list[str]:
    return [job["metadata"]["name"] for job in simulation.world.of_kind("Job")]


def components(simulation: Simulation) -> set[str]:
    return {
        pod["metadata"]["labels"]["pretrain.dev/component"]
        for pod in simulation.world.of_kind("Pod")
        if pod["status"]["phase"] == "Running"
    }


# Suspending


def test_run_suspended_in_training_saves_frees_its_devices_and_goes_on_when_resumed():
    simulation = training_run()
    simulation.world.edit(suspend=True)
    settle(simulation)
    assert state(simulation) == conditions.SUSPENDING
    until_state(simulation, conditions.SUSPENDED)
    simulation.tick()
    settle(simulation)
    assert components(simulation) == set()
    assert ObjectKey("Deployment", "demo-coordinator") not in simulation.world.objects
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.attempt == 1


def test_run_suspended_from_the_start_makes_no_pod():
    simulation = started(suspend=True)
    for _ in range(3):
        settle(simulation)
        simulation.tick()
    assert state(simulation) == conditions.SUSPENDED
    assert simulation.world.of_kind("Pod") == []
    assert simulation.world.status.stages == ()


def test_run_suspended_in_the_data_stage_runs_it_again_when_resumed():
    simulation = started()
    settle(simulation)
    simulation.tick()
    simulation.world.edit(suspend=True)
    until_state(simulation, conditions.SUSPENDED)
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)


def test_run_suspended_while_serving_has_no_server_and_serves_again_when_resumed():
    simulation = serving_run()
    simulation.world.edit(suspend=True)
    settle(simulation)
    simulation.tick()
    until_state(simulation, conditions.SUSPENDED)
    simulation.tick()
    assert "serving" not in components(simulation)
    simulation.world.edit(suspend=False)
    until_state(simulation, conditions.SERVING)


# Edits


def test_edit_of_what_an_attempt_is_made_from_starts_a_new_one_after_the_old_is_gone():
    simulation = training_run()
    simulation.world.edit(checkpoint={"interval": 30})
    settle(simulation)
    assert simulation.world.status.attempt == 2
    assert job_names(simulation) == ["demo-data"]  # the old pods are still saving
    coordinator = simulation.world.objects[ObjectKey("Deployment", "demo-coordinator")]
    assert coordinator["metadata"]["labels"]["pretrain.dev/attempt"] == "1"
    assert any("demo-train-1" in pod["metadata"]["name"] for pod in simulation.world.of_kind("Pod"))
    simulation.tick()
    settle(simulation)
    assert "demo-train-2" in job_names(simulation)
    until_state(simulation, conditions.SERVING)
    assert step(simulation) == STEPS


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("training", {"localBatchSize": 4}),
        ("training", {"activationCheckpointing": "full"}),
        ("training", {"compile": True}),
        ("nodes", {"template": {"resources": {"limits": {"memory": "9Gi"}}}}),
        ("nodes", {"count": 1}),
        ("nodes", {"devicesPerNode": 2}),
        ("parallelism", {"dataParallelReplicate": 2}),
    ],
)
def test_edit_of_how_training_runs_is_a_new_attempt_that_goes_on(part, changes):
    simulation = training_run()
    edited = {**simulation.world.body["spec"].get(part, {}), **changes}
    simulation.world.edit(**{part: edited})
    simulation.slots = edited.get("count", 2)
    settle(simulation)
    assert simulation.world.status.attempt == 2
    until_state(simulation, conditions.SERVING)
    assert step(simulation) == STEPS


def test_edit_of_how_training_runs_leaves_a_later_stage_alone():
    simulation = started()
    until(simulation, lambda: "demo-post-sft" in job_names(simulation))
    uid = simulation.world.objects[ObjectKey("Job", "demo-post-sft")]["metadata"]["uid"]
    simulation.world.edit(
        training=changed(simulation.world.body["spec"]["training"], localBatchSize=4),
        checkpoint={"interval": 7},
    )
    settle(simulation)
    after = simulation.world.objects[ObjectKey("Job", "demo-post-sft")]
    assert (after["metadata"]["uid"], after["metadata"].get("deletionTimestamp")) == (uid, None)


def test_edit_of_a_later_stage_does_not_disturb_training():
    simulation = training_run()
    simulation.world.edit(postTraining=[{"name": "other", "steps": 9}])
    settle(simulation)
    assert simulation.world.status.attempt == 1
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.artifacts[-1].name == "other"


def test_operator_of_another_version_leaves_a_running_attempt_alone():
    simulation = training_run()
    newer = SETTINGS.model_copy(update={"unreachable_seconds": 60})
    decided = Operator(simulation.world, settings=newer).plan()
    assert (decided.apply, decided.delete) == ((), ())
    assert decided.status.attempt == 1


def test_field_that_a_newer_operator_knows_is_no_edit_while_it_has_its_default():
    spec = demo_run().spec
    assert spec is not None
    explicit = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = RunSpec.model_validate(explicit)
    assert training_digest(again, 0) == training_digest(spec, 0)
    assert training_digest(demo_run(nodes__spares=1).spec or spec, 0) != training_digest(spec, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"suspend": True},
        {"serving__replicas": 3},
        {"recovery": {"maxApplicationFaults": 7}},
        {"postTraining": []},
        {"data__template": {"image": "a:2"}},
        {"export__template": {"image": "a:2"}},
    ],
)
def test_edit_of_what_an_attempt_is_not_made_from_is_no_new_attempt(changes):
    edited, spec = demo_run(**changes).spec, demo_run().spec
    assert edited is not None
    assert spec is not None
    assert training_digest(edited, 0) == training_digest(spec, 0)


def test_edit_to_a_value_that_only_python_takes_for_equal_makes_the_job_anew():
    """What is kept between passes is found by equality, and 1 == True."""
    mount = {"name": "more", "mountPath": "/more", "readOnly": 1}
    simulation = started(data__template={"volumeMounts": [mount]})
    settle(simulation)
    simulation.world.edit(
        data={
            **simulation.world.body["spec"]["data"],
            "template": {"volumeMounts": [{**mount, "readOnly": True}]},
        }
    )
    settle(simulation)
    job = simulation.world.objects[ObjectKey("Job", "demo-data")]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["volumeMounts"][-1]["readOnly"] is True


def test_edit_of_the_data_template_makes_its_job_anew():
    simulation = started()
    settle(simulation)
    first = simulation.world.objects[ObjectKey("Job", "demo-data")]
    simulation.world.edit(data=changed(first and simulation.world.body["spec"]["data"],
                                       template={"image": "other:2"}))  # fmt: skip
    settle(simulation)
    second = simulation.world.objects[ObjectKey("Job", "demo-data")]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["spec"]["template"]["spec"]["containers"][0]["image"] == "other:2"


def test_stage_added_behind_a_served_model_runs_while_the_old_one_serves_and_then_replaces_it():
    simulation = serving_run()
    entries = simulation.world.body["spec"]["postTraining"]
    simulation.world.edit(postTraining=[*entries, {"name": "more", "steps": 5}])
    settle(simulation)
    assert state(simulation) == conditions.POST_TRAINING
    assert ObjectKey("Deployment", "demo-serve") in simulation.world.objects
    until_state(simulation, conditions.SERVING)
    deployment = simulation.world.objects[ObjectKey("Deployment", "demo-serve")]
    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "/workspace/demo-post-more" in command


def test_serving_taken_out_of_the_spec_is_removed():
    simulation = serving_run()
    spec = {key: value for key, value in simulation.world.body["spec"].items() if key != "serving"}
    simulation.world.body = {**simulation.world.body, "spec": spec}
    settle(simulation)
    assert state(simulation) == conditions.COMPLETED
    assert simulation.world.of_kind("Deployment") == []
    assert simulation.world.status.serving is None


# Stops


def _error(message: str, code: int, **parts: str) -> str:
    error = StageError(message, "InputError", code, **parts)
    return codec.to_json(TerminationMessage(error=error))


@pytest.mark.parametrize(
    ("code", "message", "wanted"),
    [
        (
            exit_codes.BAD_INPUT,
            _error("not there", 64, field="spec.data.sources[0].path", value="/a", remedy="Fix."),
            conditions.BAD_INPUT,
        ),
        (exit_codes.OUT_OF_MEMORY, _error("out", 66), conditions.OUT_OF_MEMORY),
        (1, "Traceback: boom", conditions.STAGE_FAILED),
    ],
)
def test_stage_that_fails_for_good_stops_the_run_with_the_programs_words(code, message, wanted):
    simulation = started()
    settle(simulation)
    simulation.tick()
    fail_stage(simulation, "demo-data", code, message)
    settle(simulation)
    assert state(simulation) == wanted
    assert summary(simulation).status == "False"
    words = "spec.data.sources[0].path: not there (found /a). Fix." if code == 64 else ""
    assert words in summary(simulation).message
    ready = conditions.condition(simulation.world.status, "DataReady")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", wanted)


def test_stopped_run_stays_as_it_is_until_the_spec_changes_and_then_goes_on():
    simulation = started()
    settle(simulation)
    simulation.tick()
    fail_stage(simulation, "demo-data", 64, _error("not there", 64))
    settle(simulation)
    for _ in range(3):
        simulation.tick()
        assert Operator(simulation.world).one_pass() == 0
    data = {"sources": [{"name": "a", "path": "corpus/b"}]}
    simulation.world.edit(data=data)
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.retries == 1


def _first_step_fault(simulation: Simulation, report: FaultReport, last_step: int) -> None:
    document = simulation.world.document
    assert document is not None
    agent = document.agents[0]
    incident = Incident(
        round=document.round,
        time=simulation.world.now,
        evidence="WorkerExit",
        agent=agent.name,
        node=agent.node,
        first_fault=replace(report, round=document.round),
        last_step=last_step,
    )
    incidents = (*document.incidents, incident)
    simulation.world.document = replace(document, broken=True, incidents=incidents)


@pytest.mark.parametrize(
    "report",
    [
        FaultReport(1, 0, 0.0, exit_code=exit_codes.OUT_OF_MEMORY, error_message="CUDA: no memory"),
        FaultReport(1, 0, 0.0, signal=9, out_of_memory=True),
    ],
    ids=["device", "host"],
)
def test_worker_out_of_memory_at_step_1_stops_the_run_with_the_cause(report: FaultReport):
    simulation = started()
    until(simulation, lambda: simulation.world.document and simulation.world.document.round)
    _first_step_fault(simulation, report, last_step=0)
    settle(simulation)
    assert state(simulation) == conditions.OUT_OF_MEMORY
    assert "rank 0" in summary(simulation).message
    assert "localBatchSize" in summary(simulation).message
    assert simulation.world.objects[ObjectKey("Job", "demo-train-1")]["spec"]["suspend"] is True
    for _ in range(3):
        simulation.tick()
        settle(simulation)
    assert components(simulation) == set()


def test_stopped_training_goes_on_with_a_new_attempt_when_the_spec_changes():
    simulation = started()
    until(simulation, lambda: simulation.world.document and simulation.world.document.round)
    report = FaultReport(1, 0, 0.0, exit_code=exit_codes.OUT_OF_MEMORY)
    _first_step_fault(simulation, report, last_step=0)
    settle(simulation)
    simulation.world.edit(nodes=changed(simulation.world.body["spec"]["nodes"], spares=1))
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.attempt == 2


def test_faults_without_a_step_between_them_stop_the_run():
    simulation = training_run()
    for _ in range(3):
        kill_worker(simulation)
        settle(simulation)
        assert simulation.world.document is not None
        simulation.world.document = replace(
            simulation.world.document, broken=False, round=simulation.world.document.round + 1
        )
    assert state(simulation) == conditions.NO_PROGRESS
    assert "SIGKILL" in summary(simulation).message


def test_faults_over_the_budget_without_new_steps_stop_the_run():
    simulation = training_run(recovery__maxInfrastructureFaults=1)
    for _ in range(2):
        kill_worker(simulation)
        settle(simulation)
        simulation.tick()  # a new round
        document = simulation.world.document
        assert document is not None
        recovered = replace(document.incidents[-1], first_step_seconds=1.0, resumed_step=20)
        incidents = (*document.incidents[:-1], recovered)
        simulation.world.document = replace(document, broken=False, incidents=incidents)
    assert state(simulation) == conditions.FAULT_BUDGET_SPENT
    assert "spec.recovery.maxInfrastructureFaults 1" in summary(simulation).message


def test_faults_with_new_steps_between_them_are_borne_for_ever():
    script = [(at, kill_worker) for at in range(10, 60, 10)]
    body = demo_body(training__steps=STEPS, recovery={"maxInfrastructureFaults": 1})
    simulation = cluster(World(body), script=script)
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.budgets.total == 5
    assert simulation.world.status.budgets.infrastructure == 0


def test_pod_that_fails_again_and_again_before_any_round_stops_the_run():
    simulation = starting_run()
    for number in range(3):
        assert state(simulation) == conditions.STARTING
        _failed_training_pod(simulation, number, exit_code=1, message="ImportError: torch")
        settle(simulation)
    assert state(simulation) == conditions.NO_PROGRESS
    assert "ImportError: torch" in summary(simulation).message


def test_pod_out_of_memory_before_any_round_stops_the_run_at_once():
    simulation = starting_run()
    _failed_training_pod(simulation, 0, exit_code=137, message="", reason="OOMKilled")
    settle(simulation)
    assert state(simulation) == conditions.OUT_OF_MEMORY


def test_preempted_pods_before_any_round_are_not_counted():
    simulation = starting_run()
    for number in range(5):
        _failed_training_pod(simulation, number, exit_code=143, message="", preempted=True)
    settle(simulation)
    assert state(simulation) == conditions.STARTING


def _failed_training_pod(
    simulation: Simulation,
    number: int,
    *,
    exit_code: int,
    message: str,
    reason: str = "Error",
    preempted: bool = False,
) -> None:
    job = simulation.world.objects[ObjectKey("Job", "demo-train-1")]
    ended = {"exitCode": exit_code, "reason": reason, "message": message, "finishedAt": ""}
    disruption = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
    }
    labels = {"batch.kubernetes.io/job-completion-index": "0"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"demo-train-1-0-failed-{number}",
            "labels": {**job["spec"]["template"]["metadata"]["labels"], **labels},
            "ownerReferences": [{"uid": job["metadata"]["uid"]}],
        },
        "spec": {"nodeName": "node-0"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": ended}}],
            "conditions": [disruption] if preempted else [],
        },
    }
    simulation.world.apply(pod)


def test_training_job_that_fails_with_a_final_code_stops_the_run():
    simulation = training_run()
    fail_stage(simulation, "demo-train-1", 64, _error("another model's checkpoint", 64))
    settle(simulation)
    assert state(simulation) == conditions.BAD_INPUT
    assert "another model's checkpoint" in summary(simulation).message


def test_training_job_that_fails_otherwise_is_replaced_by_a_new_attempt():
    simulation = training_run()
    fail_stage(simulation, "demo-train-1", 1, "boom")
    settle(simulation)
    status = simulation.world.status
    assert (status.attempt, status.budgets.application) == (2, 1)
    assert status.incidents[-1].level == "NewAttempt"
    until_state(simulation, conditions.SERVING)


def test_training_job_deleted_by_hand_comes_back_as_the_same_attempt():
    simulation = training_run()
    del simulation.world.objects[ObjectKey("Job", "demo-train-1")]
    settle(simulation)
    assert "demo-train-1" in job_names(simulation)
    assert simulation.world.status.attempt == 1


# Waiting for somebody


def test_run_without_its_claim_waits_and_goes_on_when_it_is_there():
    simulation = started()
    claim = simulation.world.objects.pop(ObjectKey("PersistentVolumeClaim", "demo"))
    settle(simulation)
    decided = Operator(simulation.world).plan()
    assert (decided.apply, decided.requeue_after_seconds) == ((), 15.0)
    assert state(simulation) == conditions.STORAGE_NOT_FOUND
    for word in ("spec.storage.claimName demo", "namespace llm", "create it"):
        assert word in summary(simulation).message
    simulation.world.objects[ObjectKey("PersistentVolumeClaim", "demo")] = claim
    until_state(simulation, conditions.SERVING)


def test_run_that_asks_for_its_claim_gets_one_that_nobody_owns():
    simulation = started(storage={"claimName": "mine", "create": {"size": "1Gi"}})
    del simulation.world.objects[ObjectKey("PersistentVolumeClaim", "mine")]
    settle(simulation)
    claim = simulation.world.objects[ObjectKey("PersistentVolumeClaim", "mine")]
    assert "ownerReferences" not in claim["metadata"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"


WAITING_PODS = [
    (
        {
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "example/data:9",
                    "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}},
                }
            ]
        },
        conditions.IMAGE_PULL_FAILED,
        ("example/data:9", "not found", "Set spec.data.template.image"),
    ),
    (
        {
            "containerStatuses": [
                {
                    "name": "main",
                    "state": {
                        "waiting": {
                            "reason": "CreateContainerConfigError",
                            "message": 'secret "wandb" not found',
                        }
                    },
                }
            ]
        },
        conditions.CONTAINER_CONFIG_FAILED,
        ('secret "wandb" not found',),
    ),
    (
        {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available.",
                }
            ]
        },
        conditions.UNSCHEDULABLE,
        ("0/3 nodes", "Add nodes"),
    ),
    (
        {
            "initContainerStatuses": [
                {
                    "name": "check",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {
                        "terminated": {"exitCode": 64, "message": _error("another tokenizer", 64)}
                    },
                }
            ]
        },
        conditions.CRASH_LOOPING,
        ("check", "another tokenizer"),
    ),
]


@pytest.mark.parametrize(("seen", "wanted", "words"), WAITING_PODS)
def test_pod_that_does_not_start_is_told_with_the_remedy_and_heals(seen, wanted, words):
    simulation = started()
    settle(simulation)
    simulation.tick()
    key = ObjectKey("Pod", "demo-data-x")
    running = simulation.world.objects[key]
    spec = {} if wanted == conditions.UNSCHEDULABLE else running["spec"]
    simulation.world.objects[key] = {
        **running,
        "spec": spec,
        "status": {"phase": "Pending", **seen},
    }
    settle(simulation)
    assert (state(simulation), summary(simulation).status) == (wanted, "Unknown")
    for word in words:
        assert word in summary(simulation).message
    simulation.world.objects[key] = running
    until_state(simulation, conditions.SERVING)


def test_server_that_crashes_again_and_again_is_told_once():
    simulation = deploying_run()
    simulation.tick()
    ended = {"exitCode": 1, "reason": "Error", "message": "no such model"}
    circle = [
        {"waiting": {"reason": "CrashLoopBackOff"}},
        {"running": {}},
        {"terminated": ended},
        {"waiting": {"reason": "CrashLoopBackOff"}},
        {"running": {}},
    ]
    for number, current in enumerate(circle):
        seen = {"restartCount": 1 + (number > 0) + (number > 3), "ready": False}
        _server_container(simulation, {"terminated": ended}, current, seen)
        settle(simulation)
        assert state(simulation) == conditions.CRASH_LOOPING
        assert "no such model" in summary(simulation).message
        simulation.world.now += 60
    told = [event for event in simulation.world.events.values() if event.reason == "CrashLooping"]
    assert len(told) == 1
    _server_container(simulation, {"terminated": ended}, {"running": {}}, {"ready": True})
    settle(simulation)
    assert state(simulation) == conditions.DEPLOYING


def test_server_that_crashed_once_and_starts_again_is_not_looping():
    simulation = deploying_run()
    simulation.tick()
    ended = {"exitCode": 1, "reason": "Error", "message": "no such model"}
    seen = {"restartCount": 1, "ready": False}
    _server_container(simulation, {"terminated": ended}, {"running": {}}, seen)
    settle(simulation)
    assert state(simulation) == conditions.DEPLOYING


def _server_container(
    simulation: Simulation, last: dict[str, Any], current: dict[str, Any], seen: dict[str, Any]
) -> None:
    """What the kubelet says of the server, and the Deployment controller of its readiness."""
    world = simulation.world
    container = {"name": "main", "lastState": last, "state": current, **seen}
    for pod in world.of_kind("Pod"):
        if pod["metadata"]["labels"]["pretrain.dev/component"] == "serving":
            status = {"phase": "Running", "containerStatuses": [container]}
            world.objects[ObjectKey("Pod", pod["metadata"]["name"])] = {**pod, "status": status}
    key = ObjectKey("Deployment", "demo-serve")
    world.objects[key] = {**world.objects[key], "status": {"readyReplicas": 0}}


def test_image_of_a_later_stage_that_cannot_be_pulled_is_told_with_its_field():
    simulation = started()
    until_state(simulation, conditions.POST_TRAINING)
    simulation.tick()
    key = ObjectKey("Pod", "demo-post-sft-x")
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "denied"}}
    status = {"name": "main", "image": "example/post:9", "state": waiting}
    simulation.world.objects[key] = {
        **simulation.world.objects[key],
        "status": {"phase": "Pending", "containerStatuses": [status]},
    }
    settle(simulation)
    for word in ("example/post:9", "spec.postTraining[0].template.image", "denied"):
        assert word in summary(simulation).message


# Specifications that nothing can be made of


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            changed(demo_body(), metadata={"name": "a" * 41}),
            ("metadata.name", "41 characters", "at most 40"),
        ),
        (demo_body(model__dim=130), ("spec.model.dim 130", "multiple of numHeads 4")),
        (demo_body(model__architecture="mamba"), ("spec.model.architecture 'mamba'", "'llama'")),
    ],
)
def test_spec_that_breaks_a_rule_is_told_and_makes_nothing(body, words):
    world = World(body)
    Operator(world).settle()
    found = conditions.condition(world.status, conditions.SUCCEEDED)
    assert found is not None
    assert (found.status, found.reason) == ("False", conditions.INVALID_SPEC)
    for word in words:
        assert word in found.message
    assert world.objects == {}


def test_run_without_an_image_names_both_places_to_set_it():
    world = cluster(World(demo_body())).world
    none = SETTINGS.model_copy(update={"templates": {}})
    Operator(world, settings=none).settle()
    found = conditions.condition(world.status, conditions.SUCCEEDED)
    assert found is not None
    assert "spec.data.template.image" in found.message
    assert "templates.data.image" in found.message


def test_run_whose_last_stage_has_no_image_is_told_before_anything_starts():
    world = cluster(World(demo_body())).world
    templates = {name: one for name, one in SETTINGS.templates.items() if name != "serving"}
    Operator(world, settings=SETTINGS.model_copy(update={"templates": templates})).settle()
    assert conditions.state(world.status) == conditions.INVALID_SPEC
    assert world.of_kind("Job") == []


def test_edit_that_breaks_a_rule_leaves_what_runs_and_the_correction_heals():
    simulation = training_run()
    before = job_names(simulation)
    model = simulation.world.body["spec"]["model"]
    simulation.world.edit(model={**model, "dim": 130})
    settle(simulation)
    assert state(simulation) == conditions.INVALID_SPEC
    assert job_names(simulation) == before
    simulation.world.edit(model=model)
    settle(simulation)
    assert state(simulation) == conditions.TRAINING
    assert simulation.world.status.attempt == 1


# Ends of stages


def test_stage_whose_word_is_lost_runs_again():
    simulation = started()
    settle(simulation)
    simulation.tick()
    simulation.tick()
    first = simulation.world.objects[ObjectKey("Job", "demo-data")]
    assert first["status"]["conditions"][0]["type"] == "Complete"
    del simulation.world.objects[ObjectKey("Pod", "demo-data-x")]
    settle(simulation)
    second = simulation.world.objects[ObjectKey("Job", "demo-data")]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    until_state(simulation, conditions.SERVING)


def test_finished_stage_whose_job_is_deleted_stays_finished():
    simulation = training_run()
    del simulation.world.objects[ObjectKey("Job", "demo-data")]
    settle(simulation)
    assert "demo-data" not in job_names(simulation)


def test_pod_on_a_node_that_came_back_is_left_to_its_kubelet():
    simulation = training_run()
    power_off_node(simulation)
    decided = Operator(simulation.world).plan()
    assert [(d.key.kind, d.grace_seconds) for d in decided.delete] == [("Pod", 0)]
    for name in simulation.world.nodes:
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        simulation.world.nodes[name] = {**simulation.world.nodes[name], **ready}
    assert Operator(simulation.world).plan().delete == ()


def test_model_without_serving_ends_completed():
    simulation = started(serving=None)
    until_state(simulation, conditions.COMPLETED)
    assert simulation.world.of_kind("Deployment") == []
    assert summary(simulation).status == "True"


def test_server_scaled_by_hand_is_scaled_back():
    simulation = serving_run()
    key = ObjectKey("Deployment", "demo-serve")
    found = simulation.world.objects[key]
    simulation.world.objects[key] = changed(found, spec={**found["spec"], "replicas": 0})
    settle(simulation)
    assert simulation.world.objects[key]["spec"]["replicas"] == 1
