"""What a worker refuses before it builds anything: one row a rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pretrain_llm.contract.config import OptimizerConfig, ParallelismConfig, ScheduleConfig
from pretrain_llm.errors import InputError
from pretrain_llm.training import mesh as arithmetic
from pretrain_llm.training import preconditions

from .runs import family_model, mesh, run_config

MUON = OptimizerConfig("Muon", 2e-2, 0.0, 0.9, 0.95, 1e-8, adamw_learning_rate=5e-3)
LION = OptimizerConfig("Lion", 1e-3, 0.0, 0.9, 0.95, 1e-8)
STEPWISE = ScheduleConfig(2, "stepwise", 0.5, 0.0)
UNTIED = {"tie_embeddings": False}

# In a run that has started.
EDITABLE = ("parallelism", "training.localBatchSize", "training.activationCheckpointing")

REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    (
        {"model": {"architecture": "mamba"}},
        1,
        "model.architecture",
        "one of: llama, olmo2",
    ),
    ({"training": {"optimizer": LION}}, 1, "training.optimizer.name", "one of: AdamW, Muon; or"),
    (
        {"training": {"optimizer": replace(MUON, adamw_learning_rate=None)}},
        1,
        "training.optimizer.adamwLearningRate",
        "to AdamW",
    ),
    (
        {"training": {"optimizer": MUON}, "parallelism": mesh(tensor=2)},
        2,
        "parallelism.tensorParallel",
        "Muon needs the whole matrices",
    ),
    *(
        (
            {"model": family_model("nanochat_2026", **UNTIED), "parallelism": degrees},
            2,
            f"parallelism.{field}",
            "nanochat_2026 is whole on every rank",
        )
        for field, degrees in (
            ("tensorParallel", mesh(tensor=2)),
            ("pipelineParallel", mesh(pipeline=2)),
            ("contextParallel", mesh(context=2)),
        )
    ),
    ({"training": {"schedule": STEPWISE}}, 1, "training.schedule.decay", "linear, cosine"),
    ({"training": {"precision": "int4"}}, 1, "training.precision", "float32, bfloat16"),
    (
        {"training": {"activation_checkpointing": "some"}},
        1,
        "training.activationCheckpointing",
        "none, selective, full",
    ),
    ({"model": {"num_heads": 6}}, 1, "model.numHeads", "spec.model.dim 64 does not divide by 6"),
    ({"model": {"num_kv_heads": 3}}, 1, "model.numKVHeads", "numHeads 4 does not divide by 3"),
    ({"model": {"architecture": "gpt_neox"}}, 1, "model.numKVHeads", "no grouped heads"),
    (
        {"model": family_model("gpt_neox", dim=48)},
        1,
        "model.numHeads",
        "a head is 12 wide",
    ),
    (
        {"model": family_model("gpt2", max_positions=31)},
        1,
        "model.maxPositions",
        "31 positions for sequences of 32",
    ),
    ({"parallelism": mesh(tensor=3)}, 3, "parallelism.tensorParallel", "does not divide by 3"),
    ({"parallelism": mesh(tensor=4)}, 4, "parallelism.tensorParallel", "numKVHeads 2"),
    (
        {"parallelism": mesh(tensor=2), "training": {"sequence_length": 33}},
        2,
        "parallelism.tensorParallel",
        "sequenceLength 33",
    ),
    ({"parallelism": mesh(context=2)}, 2, "parallelism.contextParallel", "sequenceLength 32"),
    ({"parallelism": mesh(shard=2)}, 3, "parallelism", "is 2, but there are 3 workers"),
    ({"parallelism": mesh(shard=2)}, 1, "parallelism", "is 2, but there are 1 workers"),
    ({"training": {"global_batch_size": 6}}, 1, "training.localBatchSize", "take 4 sequences"),
    ({"parallelism": mesh(pipeline=2)}, 2, "parallelism.pipelineParallel", "tieEmbeddings"),
    (
        {"parallelism": mesh(pipeline=4), "model": UNTIED},
        4,
        "parallelism.pipelineParallel",
        "the model's 2 layers",
    ),
    (
        {"parallelism": mesh(pipeline=2), "model": UNTIED, "training": {"local_batch_size": 1}},
        2,
        "parallelism.pipelineParallel",
        "fewer sequences at once (1)",
    ),
]


@pytest.mark.parametrize(("changes", "ranks", "field", "said"), REFUSED)
def test_configuration_is_refused(
    changes: dict[str, Any], ranks: int, field: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        preconditions.check(run_config(tmp_path, **changes), ranks)
    assert caught.value.field == f"spec.{field}"
    assert said in str(caught.value)
    can_be_edited = field.startswith(EDITABLE)
    assert can_be_edited or any(way in caught.value.remedy for way in ("another name", "image"))


@pytest.mark.parametrize(
    ("parallelism", "ranks"),
    [
        (mesh(), 1),
        (mesh(shard=2), 2),
        (mesh(replicate=2), 2),
        (mesh(tensor=2), 2),
        (mesh(pipeline=2), 2),
        (mesh(replicate=2, tensor=2, pipeline=2), 8),
    ],
)
def test_configuration_is_accepted(parallelism: dict[str, int], ranks: int, tmp_path: Path) -> None:
    run = run_config(tmp_path, parallelism=parallelism, model=UNTIED)
    assert list(preconditions.problems(run, ranks)) == []


@pytest.mark.parametrize(
    ("degrees", "ranks", "loss_rank"),
    [
        (mesh(), 1, 0),
        (mesh(replicate=2, shard=4), 8, 0),
        (mesh(pipeline=2), 2, 1),
        (mesh(shard=2, tensor=2, pipeline=4), 16, 12),
        (mesh(context=2, pipeline=2), 4, 2),
    ],
)
def test_mesh_loss_is_on_the_first_rank_of_the_last_stage(
    degrees: dict[str, int], ranks: int, loss_rank: int
) -> None:
    parallelism = ParallelismConfig(**degrees)
    assert arithmetic.world_size(parallelism) == ranks
    assert arithmetic.loss_rank(parallelism) == loss_rank
