"""What ends a stage, well or not, and what stops a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import Incident
from pretrain_operator import conditions
from pretrain_operator.observed import ObjectKey

from .runs import demo_body
from .scenarios import (
    STEPS,
    components,
    job_names,
    last_words,
    serving_run,
    settle,
    started,
    starting_run,
    state,
    summary,
    training_run,
    until,
    until_state,
)
from .simulation import Simulation, cluster
from .simulation_faults import fail_stage, kill_worker, power_off_node
from .world import SETTINGS, Operator, World, changed

# Stops


@pytest.mark.parametrize(
    ("code", "message", "wanted"),
    [
        (
            exit_codes.BAD_INPUT,
            last_words(
                "not there", 64, field="spec.data.sources[0].path", value="/a", remedy="Fix."
            ),
            conditions.BAD_INPUT,
        ),
        (exit_codes.OUT_OF_MEMORY, last_words("out", 66), conditions.OUT_OF_MEMORY),
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


def stopped_run() -> Simulation:
    simulation = started()
    settle(simulation)
    simulation.tick()
    fail_stage(simulation, "demo-data", 64, last_words("not there", 64))
    settle(simulation)
    return simulation


def test_stopped_run_stays_as_it_is_until_the_spec_changes_and_then_goes_on():
    simulation = stopped_run()
    for _ in range(3):
        simulation.tick()
        assert Operator(simulation.world).one_pass() == 0
    data = {"sources": [{"name": "a", "path": "corpus/b"}]}
    simulation.world.edit(data=data)
    until_state(simulation, conditions.SERVING)
    assert simulation.world.status.retries == 1


def test_verdict_outlives_settings_that_lack_an_image():
    simulation = stopped_run()
    before = summary(simulation)
    settle(simulation, SETTINGS.model_copy(update={"templates": {}}))
    assert summary(simulation) == before


def test_edit_of_a_stopped_run_that_breaks_a_rule_is_told_and_its_correction_is_the_retry():
    simulation = stopped_run()
    model = simulation.world.body["spec"]["model"]
    simulation.world.edit(model={**model, "dim": 130})
    settle(simulation)
    assert state(simulation) == conditions.INVALID_SPEC
    simulation.world.edit(model=model)
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
    fail_stage(simulation, "demo-train-1", 64, last_words("another model's checkpoint", 64))
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
