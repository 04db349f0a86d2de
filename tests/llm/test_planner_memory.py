"""The planner's bytes against the real torchtitan model: states, activations, a whole step's peak.

The CPU differs from CUDA in two places, which are added here and are not in the planner: its
RMSNorm is composed of operators that save more, and its attention is an operator that torchtitan's
selective checkpointing does not know, so that it is computed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pretrain_llm.contract.config import RunConfig
from pretrain_operator.planner import Assumptions
from pretrain_operator.planner.families import Microbatch, family
from pretrain_operator.planner.memory import memory_plan, microbatch, stage_plan
from pretrain_operator.planner.parameters import parameters
from pretrain_operator.planner.stages import stages

from .planner_measurements import BLOCKS, STATES, STEPS, recipe_run
from .runs import mesh

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """By two processes with a thread each, for a minute."""
    with ThreadPoolExecutor() as both:
        first, second = both.map(_measured, (("states", "stages"), ("blocks", "steps")))
    return first | second


def _measured(parts: tuple[str, ...]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.llm.planner_measurements", *parts]
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", STATES)
def test_states_of_a_published_shape_are_torchtitans_to_the_byte(
    name: str, measured: dict[str, Any]
) -> None:
    run, found = STATES[name], measured["states"][name]
    first = _first_stage_plan(run)
    assert first.weights_bytes == found["weights"]
    assert first.optimizer_bytes == found["moments"]
    if run.parallelism.pipeline_parallel == 1:
        assert parameters(run.model).total == found["elements"]


def _first_stage_plan(run: RunConfig) -> Any:
    """The measured rank is of the first stage."""
    return stage_plan(run, stages(run)[0], Assumptions())


def test_stages_have_torchtitans_numbers_of_blocks(measured: dict[str, Any]) -> None:
    planned = [
        [stage.blocks for stage in stages(_pipeline(blocks, count))]
        for blocks, count in [(32, 4), (22, 4), (80, 16), (3, 3)]
    ]
    assert planned == measured["stages"]


def _pipeline(blocks: int, count: int) -> RunConfig:
    return recipe_run((blocks, 64, 4, 2, 128, 256), False, mesh(pipeline=count))


@pytest.mark.parametrize("number", range(len(BLOCKS)), ids=[str(block) for block in BLOCKS])
def test_block_keeps_the_planned_bytes_a_token(number: int, measured: dict[str, Any]) -> None:
    block = BLOCKS[number]
    run = block.run()
    batch = Microbatch(1, microbatch(run).value_bytes, block.tensor)
    shapes = family(run.model.architecture)
    planned = shapes.block_activation_bytes(run.model, batch, block.checkpointing)
    planned += _on_cpu(run, batch) - _kept_anyway(run, batch)
    for size in measured["blocks"][number].values():
        assert size == pytest.approx(planned)


def _on_cpu(run: RunConfig, batch: Microbatch) -> float:
    """Bytes a token and block that CPU operators keep beyond CUDA's."""
    mode, dim = run.training.activation_checkpointing, run.model.dim
    if mode == "none" and run.model.architecture in ("gpt_neox", "gpt2"):
        return 2 * _layer_norm_on_cpu(batch)
    if mode == "none" and run.model.architecture.startswith("nanochat"):
        return _weightless_norms_on_cpu(run, batch)
    if mode == "none":
        return 2 * _norm_on_cpu(dim, batch) + _heads_norms_on_cpu(run, batch)
    if mode == "selective":
        attention = dim * batch.value_bytes + 4 * run.model.num_heads
        return -attention / batch.tensor_parallel
    return 0.0


def _kept_anyway(run: RunConfig, batch: Microbatch) -> float:
    """nanochat of 2026 keeps what the middle block says: of one block beside its input, of three
    the last one's input. Measured is their difference, as that of two blocks."""
    is_kept = run.model.architecture == "nanochat_2026"
    return run.model.dim * batch.value_bytes / 2 if is_kept else 0.0


def _layer_norm_on_cpu(batch: Microbatch) -> float:
    """One operator on both, but the CPU's keeps mean and 1/deviation in the input's precision."""
    return 2 * (batch.value_bytes - 4) / batch.tensor_parallel


def _weightless_norms_on_cpu(run: RunConfig, batch: Microbatch) -> float:
    """Two of the block's width, and those of queries and keys: a float32 copy of the input where
    that is no float32, but no normalised one."""
    kv_dim = run.model.dim // run.model.num_heads * run.model.num_kv_heads
    return (4 - batch.value_bytes) * (3 * run.model.dim + kv_dim) / batch.tensor_parallel


def _heads_norms_on_cpu(run: RunConfig, batch: Microbatch) -> float:
    """OLMo 2 normalises whole queries and keys, whatever the tensor parallelism."""
    if run.model.architecture != "olmo2":
        return 0.0
    kv_dim = run.model.dim // run.model.num_heads * run.model.num_kv_heads
    return _norm_on_cpu(run.model.dim + kv_dim, replace(batch, tensor_parallel=1))


def _norm_on_cpu(dim: int, batch: Microbatch) -> float:
    """CUDA's saves its input as it is; the CPU's a float32 copy of it (the input itself, where that
    is float32) and the normalised one, in float32."""
    return (8 - batch.value_bytes if batch.value_bytes == 2 else 4) * dim / batch.tensor_parallel


@pytest.mark.parametrize("name", STEPS)
def test_step_peaks_within_a_tenth_of_the_plan(name: str, measured: dict[str, Any]) -> None:
    run = STEPS[name]
    batch = microbatch(run)
    one = Microbatch(1, batch.value_bytes, batch.tensor_parallel)
    cpu = run.model.num_layers * _on_cpu(run, one) + _norm_on_cpu(run.model.dim, one)
    planned = memory_plan(run, Assumptions()).allocated_bytes + batch.tokens * cpu
    assert planned == pytest.approx(measured["steps"][name]["peak"], rel=0.10)


@pytest.mark.parametrize("name", STEPS)
def test_gradients_at_the_end_of_a_step_are_torchtitans_to_the_byte(
    name: str, measured: dict[str, Any]
) -> None:
    plan = memory_plan(STEPS[name], Assumptions())
    (step,) = (moment for moment in plan.moments if moment.name == "step")
    assert step.gradients_bytes == measured["steps"][name]["gradients"]
