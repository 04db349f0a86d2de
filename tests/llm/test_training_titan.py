"""The run's configuration in torchtitan's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_llm.contract.config import OptimizerConfig, RunConfig, ScheduleConfig
from pretrain_llm.training import cpu
from pretrain_llm.training.inputs import open_inputs

from .runs import mesh, run_config

cpu.enable()  # before torchtitan is imported
from pretrain_llm.training import titan  # noqa: E402


def _config(run: RunConfig) -> titan.Trainer.Config:
    return titan.trainer_config(run, open_inputs(run))


def test_training_settings_reach_torchtitan(volume: Path) -> None:
    training = {
        "steps": 77,
        "gradient_clip_norm": 0.5,
        "precision": "bfloat16",
        "compile": True,
        "seed": 5,
        "optimizer": OptimizerConfig("AdamW", 0.125, 0.25, 0.75, 0.875, 1e-7),
        "schedule": ScheduleConfig(9, "cosine", 0.4, 0.05),
    }
    config = _config(run_config(volume, training=training))
    assert config.training.steps == 77
    assert config.training.max_norm == 0.5
    assert (config.training.local_batch_size, config.training.global_batch_size) == (4, 8)
    assert config.training.mixed_precision_param == "bfloat16"
    assert config.training.dtype == "float32"  # master weights
    assert config.compile.enable
    assert config.debug.seed == 5
    (group,) = config.optimizer.param_groups
    assert group.optimizer_kwargs == {
        "lr": 0.125,
        "betas": (0.75, 0.875),
        "eps": 1e-7,
        "weight_decay": 0.25,
    }
    schedule = config.lr_scheduler
    assert (schedule.warmup_steps, schedule.decay_type) == (9, "cosine")
    assert (schedule.decay_ratio, schedule.min_lr_factor) == (0.4, 0.05)


def test_parallel_degrees_reach_torchtitan(volume: Path) -> None:
    degrees = _config(run_config(volume, parallelism=mesh(2, 3, 4, 5, 6))).parallelism
    assert degrees.data_parallel_replicate_degree == 2
    assert degrees.data_parallel_shard_degree == 3
    assert degrees.tensor_parallel_degree == 4
    assert degrees.pipeline_parallel_degree == 5
    assert degrees.context_parallel_degree == 6


def test_checkpoints_are_full_asynchronous_and_purged_by_us(volume: Path) -> None:
    run = run_config(volume, checkpoint={"interval": 7, "keep_latest": 4})
    checkpoint = _config(run).checkpoint
    assert checkpoint.enable
    assert checkpoint.folder == str(run.layout.checkpoints)
    assert checkpoint.policy == run.checkpoint
    assert checkpoint.keep_latest_k == 0
    assert checkpoint.async_mode == "async"
    assert not checkpoint.last_save_model_only
    assert checkpoint.identity.model_fingerprint == run.model.fingerprint


@pytest.mark.parametrize(
    ("device_type", "name", "titans", "expected"),
    [
        ("cuda", "NVIDIA H100 80GB HBM3", 989e12, 989e12),
        ("cuda", "NVIDIA A100-SXM4-80GB", 312e12, 312e12),
        ("cuda", "NVIDIA Future 9000", 312e12, None),  # torchtitan's guess
        ("cpu", "CPU", 989e12, None),  # a GPU in the machine that is not used
    ],
)
def test_peak_flops_are_known_or_not_told(
    device_type: str,
    name: str,
    titans: float,
    expected: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(titan.utils, "device_type", device_type)
    assert titan.known_peak_flops(name, titans) == expected
