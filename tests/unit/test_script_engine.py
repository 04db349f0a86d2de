"""A program in the place of torchtitan: what the operator makes of it, what is planned of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pretrain_llm.contract import codec, config, curriculum, meshes
from pretrain_operator import conditions
from pretrain_operator.api.parse import run_from_object
from pretrain_operator.cli import main
from pretrain_operator.config import run_config, script_run_config
from pretrain_operator.manifests.inputs import training_digest
from pretrain_operator.observed import Run
from pretrain_operator.planner import Assumptions, plan_script

from .runs import demo_body, script_body, set_field
from .simulation import Simulation, cluster
from .simulation_faults import kill_worker
from .world import Object, Operator, World

EXAMPLE = Path(__file__).parents[2] / "examples/script/run.yaml"


def changed_run(**changes: object) -> Run:
    body = script_body()
    for path, value in changes.items():
        set_field(body, f"spec.{path.replace('__', '.')}", value)
    return run_from_object(body)


def walked() -> tuple[Simulation, dict[str, Object]]:
    """To Completed through a killed worker, with all that was applied."""
    simulation = cluster(World(script_body()), script=[(30, kill_worker)])
    applied: dict[str, Object] = {}
    for _ in range(30):
        operator = Operator(simulation.world)
        applied |= {item["kind"]: item for item in operator.plan().apply}
        operator.settle()
        if conditions.state(simulation.world.status) == conditions.COMPLETED:
            return simulation, applied
        simulation.tick()
    raise AssertionError(f"not completed: {simulation.world.status}")


def test_script_run_trains_and_is_completed_without_other_stages():
    simulation, applied = walked()
    status = simulation.world.status
    (made,) = status.artifacts
    assert (made.stage, made.step, made.source) == ("Training", 100, ())
    assert [incident.fault_class for incident in status.incidents] == ["WorkerKilled"]
    summary = conditions.condition(status, conditions.SUCCEEDED)
    assert summary
    assert summary.message == f"the model is at {made.path}"
    assert {found.type for found in status.conditions} == {"Succeeded", "Trained"}
    rendered = config.parsed(applied["ConfigMap"]["data"]["run.json"])
    assert isinstance(rendered, config.ScriptRunConfig)
    assert rendered.script.command == ("python", "train.py")
    (coordinator,) = applied["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "--max-rollbacks=0" in coordinator["command"], "only the script could skip its batches"


def test_script_that_never_saved_is_completed_all_the_same():
    simulation = cluster(World(script_body()))
    for _ in range(30):
        Operator(simulation.world).settle()
        if conditions.state(simulation.world.status) == conditions.COMPLETED:
            break
        simulation.tick()
        simulation.saved = None
        if (document := simulation.world.document) is not None:
            simulation.world.document = replace(document, latest_checkpoint=None)
    (made,) = simulation.world.status.artifacts
    assert made.step is None
    assert made.path.endswith("/demo/checkpoints")


def test_script_config_resolves_every_default():
    found = run_config(changed_run(nodes__count=4, nodes__min=2))
    assert isinstance(found, config.ScriptRunConfig)
    assert config.parsed(codec.to_json(found)) == found
    assert found.total_steps == 100
    assert meshes.fewer_nodes(found) == (3, 2)
    assert curriculum.boundaries(found) == ()


def test_config_of_a_model_is_parsed_as_one():
    found = run_config(run_from_object(demo_body()))
    assert config.parsed(codec.to_json(found)) == found


def test_script_command_edited_is_another_attempt():
    digests = {
        training_digest(run.spec, 0)
        for run in (
            changed_run(),
            changed_run(recovery={"maxApplicationFaults": 9}),
            changed_run(script__command=["python", "other.py"]),
        )
        if run.spec
    }
    assert len(digests) == 2


def test_script_without_a_command_is_told_with_its_field():
    run = changed_run(script={"steps": 5})
    assert run.spec is None
    assert "spec.script.command: Field required" in (run.spec_error or "")


def test_plan_of_a_script_invents_nothing():
    spec = changed_run(nodes__spares=1).spec
    plan = plan_script(spec)
    assert (plan.cost, plan.devices) == (None, 2)
    given = Assumptions(price=2.0, device_hours_per_interruption=10.0)
    cost = plan_script(spec, given, 360.0).cost
    assert cost
    assert cost.training_seconds == 36_000
    assert (cost.device_hours, cost.dollars) == (30.0, 60.0), "spares are paid for"
    assert cost.interruptions == 2.0
    with pytest.raises(ValueError, match="positive"):
        plan_script(spec, given, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("a script", "2 x 1", "not known; give --step-seconds")),
        (("--step-seconds", "0.5"), ("4m 10s of 0.5 s a step", "0.1 device-hours", "$0")),
    ],
)
def test_plan_command_shows_what_is_known(options, words, capsys):
    assert main(["plan", "-f", str(EXAMPLE), *options]) == 0
    shown = capsys.readouterr().out
    for word in words:
        assert word in shown


def test_plan_command_prints_json_with_null_for_the_unknown(capsys):
    assert main(["plan", "-f", str(EXAMPLE), "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["cost"], document["devices"], document["script"]["steps"]) == (None, 2, 500)


@pytest.mark.parametrize(
    ("file", "options", "word"),
    [
        (EXAMPLE, ["--suggest"], "no mesh"),
        (EXAMPLE.parents[2] / "recipes/demo.yaml", ["--step-seconds", "1"], "for scripts"),
    ],
)
def test_plan_command_refuses_an_option_of_the_other_engine(file, options, word, capsys):
    assert main(["plan", "-f", str(file), *options]) == 1
    assert word in capsys.readouterr().err


def test_simulate_command_refuses_a_script(capsys):
    assert main(["simulate", "-f", str(EXAMPLE)]) == 1
    assert "spec.script" in capsys.readouterr().err


def test_example_says_its_steps_twice_and_alike():
    spec = run_from_object(yaml.safe_load(EXAMPLE.read_text())).spec
    found = script_run_config("example", spec)
    assert found.script.command[-1] == str(found.total_steps)
