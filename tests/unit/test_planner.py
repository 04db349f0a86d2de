"""The planner's arithmetic against figures that were computed apart from it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from pretrain_llm.contract.config import ARCHITECTURES
from pretrain_llm.contract.intervals import daly_interval_seconds
from pretrain_operator.planner import DEVICES, Assumptions, RunPlan, plan_run
from pretrain_operator.planner.assumptions import GIB
from pretrain_operator.planner.checkpoints import goodput, stall_seconds
from pretrain_operator.planner.families import FAMILIES, Weight
from pretrain_operator.planner.memory import memory_plan
from pretrain_operator.planner.parameters import gathered_elements, parameters, sharded_elements
from tests.published_models import PUBLISHED, Published

from .planner_row import Row
from .planner_rows import ROWS
from .planner_specs import row_spec, spec

rows = pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])


@cache
def _plan(row: Row) -> RunPlan:
    return plan_run(row_spec(row), Assumptions(mfu=row.mfu, stall_seconds=row.stall_seconds))


def test_families_are_the_architectures_of_the_api() -> None:
    assert tuple(FAMILIES) == ARCHITECTURES


@rows
def test_parameters_of_a_published_shape_are_exact(row: Row) -> None:
    counts = _plan(row).parameters
    assert counts.total == row.parameters
    assert counts.embedding == row.shape[1] * row.shape[5]
    assert counts.non_embedding == row.parameters - counts.embedding


@pytest.mark.parametrize("published", PUBLISHED, ids=[row.name for row in PUBLISHED])
def test_parameters_of_a_published_model_of_any_family_are_exact(published: Published) -> None:
    counts = parameters(published.model)
    assert counts.total == published.parameters
    rows = published.model.vocab_size * published.tables + (published.positions or 0)
    assert counts.embedding == published.model.dim * rows


def test_published_models_are_of_every_family_but_llama() -> None:
    assert {"llama", *(row.architecture for row in PUBLISHED)} == set(ARCHITECTURES)


@rows
def test_flops_and_hours_of_a_published_run_agree_up_to_whole_steps(row: Row) -> None:
    plan = _plan(row)
    whole_step = 1 / plan.config.training.steps
    assert plan.compute.flops == pytest.approx(row.flops, rel=whole_step)
    assert plan.compute.training_device_hours == pytest.approx(row.gpu_hours, rel=whole_step)
    assert plan.reliability.interruptions == pytest.approx(row.interruptions, rel=whole_step)


@rows
def test_daly_interval_and_goodput_of_a_published_run_agree(row: Row) -> None:
    plan = _plan(row).reliability
    assert plan.daly_interval_seconds == pytest.approx(row.daly_seconds, rel=1e-6)
    at_interval = goodput(row.interval_seconds, row.stall_seconds, 300, plan.mtbf_seconds)
    assert at_interval == pytest.approx(row.goodput, abs=1e-4)  # there to first order of the stall


@rows
def test_published_run_fits_its_mesh_on_80_gib(row: Row) -> None:
    plan = _plan(row)
    assert plan.memory.fits
    assert plan.problems == ()


def test_llama_1b_on_sixteen_h100s_costs_what_six_n_d_says() -> None:
    plan = plan_run(spec(), Assumptions(mfu=0.42, price=2.50))
    assert plan.compute.training_device_hours * 2.50 == pytest.approx(521.7, abs=0.1)
    assert plan.reliability.checkpoint_bytes == 12 * 1_040_254_976
    assert plan.reliability.export_bytes == 2 * 1_040_254_976
    assert plan.accumulation == 4


def test_attention_flops_are_those_of_palm() -> None:
    plan = plan_run(spec())
    assert plan.compute.attention_flops == 12 * 16 * 2048 * 2048 * plan.tokens
    assert plan.compute.mfu_with_attention == pytest.approx(0.40 * (1 + 4.027 / 31.21), rel=1e-3)


def test_spares_are_paid_for() -> None:
    without, with_spare = plan_run(spec()), plan_run(spec(nodes={"spares": 1}))
    assert without.dollars is not None
    assert with_spare.dollars == pytest.approx(1.5 * without.dollars)
    assert with_spare.compute == without.compute


def test_goodput_is_best_near_dalys_interval() -> None:
    stall, mtbf = 5.0, 50_000.0
    best = daly_interval_seconds(stall, mtbf)
    at = [goodput(factor * best, stall, 300, mtbf) for factor in (0.5, 1.0, 2.0)]
    assert max(at) == at[1]


def test_goodput_without_progress_between_faults_is_zero() -> None:
    assert goodput(1000, 1, 300, 200) == 0


def test_run_without_progress_between_faults_has_no_end_and_no_price() -> None:
    plan = plan_run(spec(), Assumptions(device_hours_per_interruption=1))
    assert plan.reliability.goodput == 0
    assert plan.reliability.wall_seconds is None
    assert plan.dollars is None


def test_stall_of_a_small_state_is_a_second_and_a_half() -> None:
    assert stall_seconds(1e9, 20e9) == 1.5
    assert stall_seconds(100e9, 20e9) == 5.5


# Memory


def test_states_of_one_device_take_sixteen_bytes_a_parameter() -> None:
    plan = plan_run(spec(nodes={"count": 1, "devicesPerNode": 1}))
    (step,) = (moment for moment in plan.memory.moments if moment.name == "step")
    states = plan.memory.weights_bytes + plan.memory.optimizer_bytes + step.gradients_bytes
    assert states == 16 * plan.parameters.total


def test_shard_of_an_uneven_weight_is_padded() -> None:
    weights = (Weight("odd", (10, 3), split=0), Weight("norm", (10,)))
    assert sharded_elements(weights, 1, 4) == 3 * 3 + 3
    assert sharded_elements(weights, 2, 4) == 2 * 3 + 3
    assert gathered_elements(weights, 2) == 5 * 3 + 10


def test_activations_shrink_with_every_mode_of_checkpointing() -> None:
    modes = ("none", "selective", "full")
    plans = [plan_run(spec(training={"activationCheckpointing": mode})) for mode in modes]
    allocated = [plan.memory.allocated_bytes for plan in plans]
    assert allocated == sorted(allocated, reverse=True)
    assert allocated[0] > 2 * allocated[2]


def test_first_pipeline_stage_holds_a_microbatch_for_every_stage() -> None:
    config = plan_run(
        spec(
            model={"tieEmbeddings": False},
            training={"localBatchSize": 4, "globalBatchSize": 64},
            parallelism={"pipelineParallel": 4, "dataParallelShard": 4},
        )
    ).config
    two, four, eight = (
        memory_plan(
            replace(config, training=replace(config.training, local_batch_size=sequences)),
            Assumptions(),
        ).allocated_bytes
        for sequences in (2, 4, 8)
    )
    assert two < four == eight


def test_sequence_shared_by_four_ranks_has_a_quarter_of_its_activations_on_each() -> None:
    """All but the keys and values of the others' tokens, which attention gathers: 3/4 of theirs."""
    training = {"sequenceLength": 16384, "globalBatchSize": 4, "localBatchSize": 1}
    alone, shared = (
        plan_run(
            spec(
                training=training,
                nodes={"count": 1, "devicesPerNode": 4 * degree},
                parallelism={"contextParallel": degree},
            )
        ).memory
        for degree in (1, 4)
    )
    loss, quarter = alone.moments[0], shared.moments[0]
    gathered = 16 * 3 / 4 * 16384 * 2 * 512 * 2  # blocks, tokens, widths, bytes
    assert quarter.activations_bytes == loss.activations_bytes / 4 + gathered
    assert quarter.logits_bytes == loss.logits_bytes / 4
    assert shared.weights_bytes == alone.weights_bytes / 4  # FSDP's shards are 16 in place of 4


def test_run_that_does_not_fit_is_told_the_field_the_value_and_the_remedy() -> None:
    plan = plan_run(spec(training={"localBatchSize": 32}))
    assert not plan.memory.fits
    (problem,) = plan.problems
    assert str(problem).startswith("spec.training.localBatchSize 32: needs 123.6 GiB")
    assert str(problem).endswith("of 80 GiB a device; lower it to 16")
    assert plan_run(spec(training={"localBatchSize": 16})).problems == ()


def test_run_whose_single_sequence_does_not_fit_is_told_to_checkpoint_activations() -> None:
    long = {"sequenceLength": 65536, "localBatchSize": 1, "globalBatchSize": 16}
    plan = plan_run(spec(model={"vocabSize": 2048}, training=long))
    (problem,) = plan.problems
    remedy = "set spec.training.activationCheckpointing selective"
    assert str(problem).endswith(remedy)
    fixed = {**long, "activationCheckpointing": "selective"}
    assert plan_run(spec(model={"vocabSize": 2048}, training=fixed)).problems == ()


def test_model_that_no_mesh_of_the_devices_holds_is_told_to_add_nodes() -> None:
    model = {"dim": 8192, "numLayers": 80, "numHeads": 64, "ffnHiddenDim": 28672}
    plan = plan_run(
        spec(model=model, training={"globalBatchSize": 8, "localBatchSize": 1}, nodes={"count": 1}),
        suggest=True,
    )
    assert plan.suggestion is None
    assert "add nodes, or make the model smaller" in str(plan.problems[0])


def test_device_with_more_memory_holds_what_a_smaller_one_does_not() -> None:
    wide = spec(training={"localBatchSize": 32})
    assert plan_run(wide, Assumptions(device="H200")).memory.fits
    assert not plan_run(wide, Assumptions(device="H200", device_memory_gib=100)).memory.fits
    assert plan_run(wide).memory.device_bytes == 80 * GIB


# Advice


@pytest.mark.parametrize(
    ("tokens", "passes", "words"),
    [
        (5e9, False, "below Chinchilla's 20"),
        (50e9, True, "compute-optimal"),
        (200e9, True, "usual for models that are served"),
        (3e12, None, "past 1,000"),
    ],
)
def test_advice_tells_where_the_token_ratio_lies(
    tokens: float, passes: bool | None, words: str
) -> None:
    plan = plan_run(spec(training={"tokens": tokens}))
    (line,) = (line for line in plan.advice if line.rule == "token-ratio")
    assert line.passes is passes
    assert words in line.text


def test_advice_names_the_gates_for_pretraining_at_all() -> None:
    lines = {line.rule: line for line in plan_run(spec(training={"tokens": 1e9})).advice}
    assert lines["clean-tokens"].passes is False
    assert "$20,000" in lines["budget"].text
    assert "0.73 GB to serve at 4 bits" in lines["serving"].text
    assert "16.6 GB of state over 16 devices" in lines["state"].text


def test_advice_names_a_better_checkpoint_interval() -> None:
    plan = plan_run(spec(checkpoint={"interval": 10}), Assumptions(mfu=0.42, stall_seconds=1.5))
    (line,) = (line for line in plan.advice if line.rule == "interval")
    assert line.passes is False
    assert f"{plan.reliability.daly_interval_steps} would give 99.9" in line.text


def test_daly_interval_in_steps_never_exceeds_the_run() -> None:
    plan = plan_run(spec(training={"tokens": None, "steps": 20}))
    assert plan.reliability.daly_interval_steps == 20


# Assumptions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mfu": 0.0}, "mfu 0.0: give a share"),
        ({"mfu": 1.5}, "mfu 1.5: give a share"),
        ({"device": "H1000"}, "device H1000: choose one of A100"),
        ({"price": -1.0}, "price -1.0: give 0 or more"),
        ({"stall_seconds": 0.0}, "stall_seconds 0.0: give a positive number"),
        ({"device_memory_gib": -80.0}, "device_memory_gib -80.0: give a positive number"),
        ({"fragmentation": 1.0}, "fragmentation 1.0: give a share below 1"),
    ],
)
def test_assumption_that_cannot_be_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        Assumptions(**fields)  # type: ignore[arg-type]


def test_every_device_has_a_source() -> None:
    assert all(device.source and device.peak_flops > 1e14 for device in DEVICES.values())


def test_planner_imports_no_torch_and_no_cluster() -> None:
    code = (
        "import sys, pretrain_operator.planner;"
        "print({'torch', 'kopf', 'kubernetes', 'aiohttp'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_muon_keeps_one_moment_of_the_matrices_of_blocks() -> None:
    muon = {"name": "Muon", "learningRate": 0.02, "adamwLearningRate": 3e-3}
    adamw, with_muon = (plan_run(spec(training=training)) for training in ({}, {"optimizer": muon}))
    matrices = 16 * (2 * 2048**2 + 2 * 512 * 2048 + 3 * 2048 * 8192)
    before, after = adamw.reliability.checkpoint_bytes, with_muon.reliability.checkpoint_bytes
    assert before - after == 4 * matrices
    saved = adamw.memory.optimizer_bytes - with_muon.memory.optimizer_bytes
    assert saved == 4 * matrices / 16  # on 16 devices


def test_curriculum_figures_are_those_of_its_segments() -> None:
    curriculum = [
        {"fromStep": 700},
        {"fromStep": 800, "sequenceLength": 8192, "globalBatchSize": 128, "localBatchSize": 4},
    ]
    lengths = {"steps": 1000, "tokens": None}
    plan = plan_run(spec(training={**lengths, "curriculum": curriculum}))
    first, second, long = plan.segments
    assert [segment.steps for segment in plan.segments] == [700, 100, 200]
    assert [segment.accumulation for segment in plan.segments] == [4, 4, 2]
    assert plan.tokens == sum(segment.tokens for segment in plan.segments) == 1000 * 512 * 2048
    assert plan.compute.flops == pytest.approx(sum(s.compute.flops for s in plan.segments))
    assert plan.compute.attention_flops == pytest.approx(
        sum(s.compute.attention_flops for s in plan.segments)
    )
    assert first.compute.attention_flops == 7 * second.compute.attention_flops
    assert long.compute.attention_flops == 4 * 2 * second.compute.attention_flops
    assert plan.memory.total_bytes == long.memory_bytes > first.memory_bytes
    assert plan_run(spec(training=lengths)).segments == ()
