"""From a manifest to a plan: refused as the API server would, suggested meshes, what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain_operator.api.spec import RunSpec
from pretrain_operator.cli import main
from pretrain_operator.config import violations
from pretrain_operator.planner import Assumptions, RecipeError, plan_run, recipe
from pretrain_operator.planner.document import fragment
from pretrain_operator.planner.meshes import legal_configs

from .planner_row import Row
from .planner_rows import ROWS
from .planner_specs import document, row_spec, spec

_ROOT = Path(__file__).parents[2]


def manifest(name: str = "llama-1b", **sections: dict[str, Any]) -> str:
    body = {
        "apiVersion": "pretrain.dev/v1alpha1",
        "kind": "PretrainRun",
        "metadata": {"name": name},
        "spec": document(**sections),
    }
    return yaml.safe_dump(body)


def test_recipe_of_every_file_in_recipes_is_accepted() -> None:
    files = sorted((_ROOT / "recipes").glob("*.yaml"))
    assert files
    for file in files:
        assert recipe(file.read_text()).spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            manifest(parallelism={"dataParallelShard": 3}),
            "spec.parallelism 3 ranks: nodes.count x nodes.devicesPerNode is 16",
        ),
        (
            manifest(training={"globalBatchSize": 500}),
            "spec.training.globalBatchSize 500: choose a multiple of data-parallel ranks x"
            " localBatchSize, which is 128",
        ),
        (manifest(model={"numHeads": 30}), "spec.model.dim 2048: choose a multiple of numHeads 30"),
        (manifest(model={"architecture": "gpt5"}), "spec.model.architecture 'gpt5'"),
        (manifest(model={"dimm": 5}), "spec.model.dimm is no field of a PretrainRun"),
        (manifest(training={"globalBatchSize": 0}), "spec.training.globalBatchSize 0"),
        (manifest("a" * 60), "metadata.name " + "a" * 60 + " (60 characters)"),
        ("kind: [", "this is no YAML"),
        ("kind: Pod\n", "0 objects of kind PretrainRun; give a manifest with one"),
        ("kind: PretrainRun\napiVersion: v1\n", "apiVersion v1: this version plans pretrain.dev"),
        (
            "kind: PretrainRun\napiVersion: pretrain.dev/v1alpha1\n",
            "metadata.name is missing; name the run",
        ),
    ],
)
def test_recipe_that_the_api_server_would_refuse_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe(text)
    assert message in str(refused.value)


def test_recipe_with_several_faults_names_all_of_them() -> None:
    text = manifest(model={"numHeads": 30, "dimm": 5}, training={"globalBatchSize": 500})
    with pytest.raises(RecipeError) as refused:
        recipe(text)
    assert str(refused.value).count("\n") == 3  # dimm, numHeads twice, globalBatchSize


def test_recipe_beside_other_objects_is_found() -> None:
    claim = "kind: PersistentVolumeClaim\napiVersion: v1\n---\n"
    assert recipe(claim + manifest()).name == "llama-1b"


# Suggestions


# One of each size, and the largest, whose search is the longest.
SUGGESTED = [row for row in ROWS[::3] if row.gpus < 1024] + [ROWS[-1]]


@pytest.mark.parametrize("row", SUGGESTED, ids=[row.name for row in SUGGESTED])
def test_suggested_mesh_is_legal_and_fits(row: Row) -> None:
    plan = plan_run(row_spec(row), Assumptions(mfu=row.mfu), suggest=True)
    assert plan.suggestion is not None
    merged = _merged(row_spec(row), yaml.safe_load(fragment(plan.suggestion))["spec"])
    assert not list(violations("run", merged))
    again = plan_run(merged, plan.assumptions)
    assert again.memory == plan.suggestion.memory
    assert again.problems == ()
    assert again.accumulation == plan.suggestion.accumulation


def _merged(given: RunSpec, changes: dict[str, Any]) -> RunSpec:
    body = given.model_dump(by_alias=True, exclude_none=True)
    for section, fields in changes.items():
        body[section].update(fields)
    return RunSpec.model_validate(body)


def test_suggestion_reaches_the_global_batch_exactly() -> None:
    plan = plan_run(spec(training={"globalBatchSize": 48, "localBatchSize": None}), suggest=True)
    assert plan.suggestion is not None
    config = plan.suggestion.config
    mesh = config.parallelism
    ranks = mesh.data_parallel_replicate * mesh.data_parallel_shard
    assert ranks * config.training.local_batch_size * plan.suggestion.accumulation == 48


def test_suggestion_shards_within_nodes_and_replicates_across() -> None:
    plan = plan_run(spec(nodes={"count": 8}), suggest=True)
    assert plan.suggestion is not None
    mesh = plan.suggestion.config.parallelism
    assert (mesh.data_parallel_replicate, mesh.data_parallel_shard) == (8, 8)
    assert mesh.tensor_parallel == mesh.pipeline_parallel == 1


def test_suggestion_splits_tensors_only_where_nothing_cheaper_fits() -> None:
    big = {"dim": 8192, "numLayers": 80, "numHeads": 64, "ffnHiddenDim": 28672}
    plan = plan_run(
        spec(
            model=big,
            training={"sequenceLength": 8192, "globalBatchSize": 64, "localBatchSize": 1},
            nodes={"count": 8},
        ),
        suggest=True,
    )
    assert plan.suggestion is not None
    assert plan.suggestion.memory.fits
    assert plan.suggestion.config.training.activation_checkpointing != "none"


def test_suggestion_shares_a_sequence_only_where_it_is_long() -> None:
    """One sequence of 256k tokens does not fit a device of 16; 2k tokens have nothing to share."""
    training = {"sequenceLength": 262144, "globalBatchSize": 4, "localBatchSize": 1}
    plan = plan_run(spec(training=training, parallelism={"contextParallel": 4}), suggest=True)
    assert plan.suggestion is not None
    assert plan.suggestion.config.parallelism.context_parallel >= 4  # else 4 of 16 ranks have none
    assert {c.parallelism.context_parallel for c in legal_configs(plan_run(spec()).config)} == {1}


def test_suggestion_never_pipelines_tied_embeddings() -> None:
    tied, untied = spec(), spec(model={"tieEmbeddings": False})
    assert _deepest_pipeline(tied) == 1
    assert _deepest_pipeline(untied) == 16


def test_suggestion_never_splits_muons_matrices() -> None:
    muon = {"name": "Muon", "learningRate": 0.02, "adamwLearningRate": 0.004}
    given = spec(model={"tieEmbeddings": False}, training={"optimizer": muon})
    found = [config.parallelism for config in legal_configs(plan_run(given).config)]
    assert {mesh.tensor_parallel for mesh in found} == {1}
    assert max(mesh.pipeline_parallel for mesh in found) == 16


def test_suggestion_leaves_a_family_whole_that_is_never_split() -> None:
    long = {"sequenceLength": 65536, "globalBatchSize": 16, "localBatchSize": 1}
    given = spec(model={"architecture": "nanochat_2026", "tieEmbeddings": False}, training=long)
    configs = legal_configs(plan_run(given).config)
    assert {config.parallelism.model_ranks for config in configs} == {1}


def _deepest_pipeline(given: RunSpec) -> int:
    configs = legal_configs(plan_run(given).config)
    return max(config.parallelism.pipeline_parallel for config in configs)


# The command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(manifest())
    return path


def test_command_prints_a_table_with_its_assumptions(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-f", str(file), "--mfu", "0.42", "--suggest"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in (
        "llama-1b fits 2 x 8 H100",
        "1,040,254,976",
        "6ND 3.121e+20",
        "208.7 device-hours",
        "dataParallelReplicate: 2",
        "MFU 0.42",
        "45,566 device-hours an interruption",
    ):
        assert part in out


def test_command_prints_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-f", str(file), "-o", "json", "--suggest"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] is True
    assert plan["parameters"]["total"] == 1_040_254_976
    assert plan["suggestion"]["spec"]["parallelism"]["dataParallelShard"] == 8
    assert plan["assumptions"]["peak_flops"] == 989e12
    assert plan["memory"]["total_bytes"] < plan["memory"]["device_bytes"]


def test_command_for_a_run_that_does_not_fit_says_so_and_fails(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "-f", str(file), "--device-memory", "20"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "does not fit" in out
    assert "spec.training.localBatchSize 8: needs" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-f", "missing.yaml"], "missing.yaml"),
        (["-f", "FILE", "--mfu", "2"], "mfu 2.0: give a share of the peak"),
    ],
)
def test_command_with_bad_arguments_is_one_line_on_stderr(
    arguments: list[str], message: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    assert main(["plan", *given]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_command_names_what_the_run_may_shrink_to_and_what_would_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven billion parameters: one device alone cannot hold the state of all."""
    file = tmp_path / "seven.yaml"
    shapes = {"dim": 4096, "numLayers": 32, "ffnHiddenDim": 14336, "tieEmbeddings": False}
    frugal = {"localBatchSize": 1, "activationCheckpointing": "full"}
    nodes = {"count": 4, "devicesPerNode": 1, "min": 1}
    file.write_text(manifest("seven", model=shapes, training=frugal, nodes=nodes))
    assert main(["plan", "-f", str(file)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"shrinks to 2, 1 \(does not fit: 1\d\d\.\d GiB a device\) nodes", out)
