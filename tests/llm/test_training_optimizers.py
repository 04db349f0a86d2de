"""Optimisers, weight decay, z-loss and skipped steps: the parts, and whole runs on meshes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain_llm.contract.config import (
    ARCHITECTURES,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    SkipStepConfig,
)
from pretrain_llm.training import cpu

from .runs import family_model, mesh, run_config, write_data
from .worlds import World, trained, world

cpu.enable()  # before torchtitan is imported
from pretrain_llm.training import muon, optimizers  # noqa: E402
from pretrain_llm.training.loss import SquaredLogNormaliser  # noqa: E402
from pretrain_llm.training.schedulers import Schedulers  # noqa: E402
from pretrain_llm.training.skip_step import OutlierGate  # noqa: E402

ADAMW = OptimizerConfig("AdamW", 1e-2, 0.1, 0.9, 0.95, 1e-8)
MUON = replace(
    ADAMW,
    name="Muon",
    learning_rate=2e-2,
    adamw_learning_rate=5e-3,
    embedding_learning_rate=1e-2,
    output_learning_rate=4e-3,
    momentum=0.9,
    no_weight_decay=("embeddings", "norms", "biases"),
)


# Parts


def test_orthogonalised_matrix_has_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((48, 16), (16, 48), (32, 32)):
        values = torch.linalg.svdvals(muon.orthogonalised(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.5


@pytest.mark.parametrize("shape", [(48, 16), (16, 48)])
def test_muon_takes_the_steps_of_torchs_muon(shape: tuple[int, int]) -> None:
    """torch's computes in bfloat16."""
    torch.manual_seed(0)
    theirs = torch.nn.Parameter(torch.randn(shape))
    reference = torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, momentum=0.9)
    buffer, ours = torch.zeros(shape), theirs.detach().clone()
    for _ in range(3):
        theirs.grad = torch.randn(shape)
        buffer.lerp_(theirs.grad, 0.1)
        ours -= muon.scaled_directions(theirs.grad.lerp(buffer, 0.9), None)
        reference.step()
    assert torch.allclose(ours, theirs.detach(), atol=0.05)


def test_muon_takes_queries_keys_and_values_for_matrices_of_their_own() -> None:
    torch.manual_seed(0)
    groups, queries, width, columns = 2, 3, 4, 24
    fused = torch.randn(groups, queries + 2, width, columns)
    found = muon.scaled_directions(fused.view(-1, columns), muon.HeadGroups(queries, width))
    for part in (slice(0, queries), slice(queries, queries + 1), slice(queries + 1, None)):
        alone = muon.scaled_directions(fused[:, part].reshape(-1, columns), None)
        assert torch.equal(found.view_as(fused)[:, part].reshape(-1, columns), alone)


GROUPS = [
    (ADAMW, {"": ("AdamW", 1e-2, 0.1)}),
    (
        replace(ADAMW, no_weight_decay=("norms",)),
        {"norms": ("AdamW", 1e-2, 0.0), "biases": ("AdamW", 1e-2, 0.1)},
    ),
    (
        replace(ADAMW, no_weight_decay=("biases", "embeddings"), output_learning_rate=1e-3),
        {
            "biases": ("AdamW", 1e-2, 0.0),
            "embeddings": ("AdamW", 1e-2, 0.0),
            "output": ("AdamW", 1e-3, 0.1),
            "matrices": ("AdamW", 1e-2, 0.1),
        },
    ),
    (
        MUON,
        {
            "matrices": ("Muon", 2e-2, 0.1),
            "embeddings": ("AdamW", 1e-2, 0.0),
            "output": ("AdamW", 4e-3, 0.1),
            "norms": ("AdamW", 5e-3, 0.0),
            "biases": ("AdamW", 5e-3, 0.0),
            "value embeddings": ("AdamW", 5e-3, 0.0),
            "start scales": ("AdamW", 5e-3, 0.1),
        },
    ),
    (
        replace(
            MUON, no_weight_decay=("scalars",), adamw_weight_decay=0.01, scalar_learning_rate=0.5
        ),
        {
            "matrices": ("Muon", 2e-2, 0.1),
            "embeddings": ("AdamW", 1e-2, 0.01),
            "value embeddings": ("AdamW", 5e-3, 0.01),
            "output": ("AdamW", 4e-3, 0.01),
            "residual scales": ("AdamW", 5e-3, 0.0),
            "start scales": ("AdamW", 0.5, 0.0),
            "smear and backout": ("AdamW", 0.2, 0.0),
        },
    ),
]


@pytest.mark.parametrize(("optimizer", "expected"), GROUPS)
def test_kinds_of_parameters_have_their_optimiser_rate_and_decay(
    optimizer: OptimizerConfig, expected: dict[str, Any]
) -> None:
    found = {group.pattern: group for group in optimizers.optimizers(optimizer).param_groups}
    for kind, (name, rate, decay) in expected.items():
        group = found[optimizers.KINDS.get(kind, ".*")]
        settings = group.optimizer_kwargs
        assert (group.optimizer_name, settings["lr"], settings["weight_decay"]) == (
            name,
            rate,
            decay,
        )
        moments = {"momentum": 0.9} if name == "Muon" else {"betas": (0.9, 0.95), "eps": 1e-8}
        assert moments.items() <= settings.items()


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_parameter_is_of_one_kind(family: str) -> None:
    from pretrain_llm import models

    model = family_model(family, tie_embeddings=False)
    with torch.device("meta"):
        built = models.architecture(family).model_spec(model, 32).model.build()
    for name, parameter in built.named_parameters():
        (kind,) = (
            kind
            for kind, pattern in optimizers.KINDS.items()
            if optimizers.re.search(pattern, name)
        )
        if kind != "smear and backout":  # whose gate is a matrix of one row
            is_vector = kind in ("norms", "biases", "residual scales", "start scales")
            assert is_vector == (parameter.dim() == 1), name


def _decays(schedulers: Schedulers, group: dict[str, float], steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(group["weight_decay"])
        schedulers.step()
    return found


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_weight_decay_follows_a_cosine_to_zero_also_from_a_checkpoint() -> None:
    config = Schedulers.Config(
        start=2, total_steps=4, warmup_steps=0, min_lr_factor=1.0, weight_decay="cosine"
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], weight_decay=0.8)
    schedulers = config.build(optimizers=[optimizer], training_steps=9)
    (group,) = optimizer.param_groups
    group["weight_decay"] = 0.1  # as it was saved
    schedulers.load_state_dict({"last_epoch": 2})
    schedulers.apply()
    expected = [0.4 * (1 + math.cos(math.pi * step / 4)) for step in range(5)]
    assert _decays(schedulers, group, 5) == pytest.approx(expected)


def test_z_loss_is_the_square_of_the_normalisers_log_and_its_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    squares = SquaredLogNormaliser.apply(logits, None)
    assert torch.allclose(squares, logits.logsumexp(-1).square())
    assert torch.autograd.gradcheck(lambda x: SquaredLogNormaliser.apply(x, None), logits)


def _gate(*observed: tuple[float, float]) -> list[bool]:
    gate = OutlierGate(SkipStepConfig(window=8, deviations=3.0))
    return [gate.admits(step, *each) for step, each in enumerate(observed)]


STEADY = [(3.0, 1.0), (3.1, 1.1), (2.9, 0.9), (3.0, 1.0)]


@pytest.mark.parametrize(
    ("last", "is_admitted"),
    [
        ((3.05, 1.05), True),
        ((2.0, 0.1), True),  # far below
        ((9.0, 1.0), False),
        ((3.0, 9.0), False),
        ((math.nan, 1.0), False),
        ((3.0, math.inf), False),
    ],
)
def test_step_that_stands_out_is_skipped(last: tuple[float, float], is_admitted: bool) -> None:
    assert _gate(*STEADY, last) == [True] * 4 + [is_admitted]


def test_steps_before_half_a_window_are_skipped_only_where_they_are_no_number() -> None:
    assert _gate((3.0, 1.0), (99.0, 99.0), (math.nan, 1.0)) == [True, True, False]


def test_skipped_step_does_not_raise_the_limit() -> None:
    assert _gate(*STEADY, (9.0, 1.0), (9.0, 1.0)) == [True] * 4 + [False] * 2


def test_gate_restored_decides_as_the_one_that_was_saved() -> None:
    gate, restored = (OutlierGate(SkipStepConfig(8, 3.0)) for _ in range(2))
    for step, observed in enumerate(STEADY):
        gate.admits(step, *observed)
    restored.restore(gate.saved)
    assert not restored.admits(5, 9.0, 1.0)


# Whole runs

runs = pytest.mark.usefixtures("warm_workers")
CONSTANT = ScheduleConfig(0, "linear", 0.0, 1.0)
ALL_OPTIONS: dict[str, Any] = {
    "optimizer": MUON,
    "schedule": CONSTANT,
    "z_loss_weight": 1e-3,
    "skip_step": SkipStepConfig(window=8, deviations=0.5),  # of 8 steps some are skipped
    "local_batch_size": 2,
}


def _config(folder: Path, **changes: Any) -> RunConfig:
    folder.mkdir(exist_ok=True)
    parallelism = changes.pop("parallelism", mesh())
    model = family_model("llama", tie_embeddings=False)
    run = run_config(folder, model=model, parallelism=parallelism, training=changes)
    write_data(run.layout)
    return run


def _run(folder: Path, ranks: int = 1, **changes: Any) -> World:
    return trained(_config(folder, **changes), ranks)


@pytest.fixture(scope="module")
def one_rank(warm_workers: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    """On which some steps are skipped, and the loss falls nevertheless."""
    with world(_config(tmp_path_factory.mktemp("one"), **ALL_OPTIONS)) as workers:
        done = workers.finish()
        assert 0 < done.log().count("has no update") < 8
    assert done.losses[8] < 0.95 * done.losses[1]
    return done


@runs
@pytest.mark.parametrize("parallelism", [mesh(shard=2), mesh(replicate=2)], ids=["fsdp", "hsdp"])
def test_muon_on_a_mesh_has_the_losses_of_one_rank(
    parallelism: dict[str, int], one_rank: World, tmp_path: Path
) -> None:
    found = _run(tmp_path, 2, **ALL_OPTIONS, parallelism=parallelism)
    assert found.losses == pytest.approx(one_rank.losses, abs=1e-5)


@runs
def test_muon_resumed_has_the_losses_of_the_run_that_was_not_stopped(
    one_rank: World, tmp_path: Path
) -> None:
    _run(tmp_path, **{**ALL_OPTIONS, "steps": 6})
    resumed = _run(tmp_path, **ALL_OPTIONS)
    assert resumed.restored_step == 6
    assert resumed.losses == {step: one_rank.losses[step] for step in (7, 8)}


@runs
def test_muon_in_two_pipeline_stages_loss_falls(tmp_path: Path) -> None:
    found = _run(tmp_path, 2, **ALL_OPTIONS, parallelism=mesh(pipeline=2))
    assert found.losses[8] < found.losses[1]


@runs
def test_z_loss_with_tensor_parallelism_has_the_losses_of_one_rank(tmp_path: Path) -> None:
    plain, on_one, on_two = (
        _run(tmp_path / str(number), ranks, steps=3, parallelism=mesh(tensor=ranks), **changes)
        for number, (ranks, changes) in enumerate(
            [(1, {}), (1, {"z_loss_weight": 0.1}), (2, {"z_loss_weight": 0.1})]
        )
    )
    assert on_two.losses == pytest.approx(on_one.losses, abs=5e-6)
    assert on_one.losses[1] > plain.losses[1] + 1  # 0.1 x (log 256)^2
