"""The same run on different meshes: same samples, same weights, so the same losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pretrain_llm.checkpoints import folders
from pretrain_llm.contract.config import ARCHITECTURES, LEARNED_POSITIONS, UNSPLIT, RunConfig

from .runs import family_model, mesh, run_config, write_data
from .worlds import trained

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 3
SEQUENCE = 256  # tokens: two ranks have a block of the mask each
MESHES = {
    "fsdp": mesh(shard=2),
    "hsdp": mesh(replicate=2),
    "tensor": mesh(tensor=2),
    "context": mesh(context=2),
}

SPLIT = tuple(family for family in ARCHITECTURES if family not in UNSPLIT)

families = pytest.mark.parametrize("family", ARCHITECTURES, scope="module")


def _run(volume: Path, family: str, parallelism: dict[str, int], *, tied: bool = True) -> RunConfig:
    return run_config(
        volume,
        model=family_model(family, tie_embeddings=tied, **_positions(family)),
        parallelism=parallelism,
        training={
            "steps": STEPS,
            "sequence_length": SEQUENCE,
            "global_batch_size": 4,
            "local_batch_size": 2,
        },
    )


def _losses(
    folder: Path, family: str, parallelism: dict[str, int], *, tied: bool = True
) -> dict[int, float]:
    folder.mkdir()
    run = _run(folder, family, parallelism, tied=tied)
    write_data(run.layout)
    return trained(run, ranks=math.prod(parallelism.values())).losses


def _positions(family: str) -> dict[str, int]:
    return {"max_positions": SEQUENCE} if family in LEARNED_POSITIONS else {}


@pytest.fixture(scope="module")
def one_rank_losses(family: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    return _losses(tmp_path_factory.mktemp("one") / "run", family, mesh())


@families
def test_training_one_rank_loss_falls(family: str, one_rank_losses: dict[int, float]) -> None:
    assert list(one_rank_losses) == [1, 2, 3], family
    assert one_rank_losses[3] < 0.98 * one_rank_losses[1]


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (family, name)
        for family in ARCHITECTURES
        for name in MESHES
        if family in SPLIT or name in ("fsdp", "hsdp")
    ],
    scope="module",
)
def test_training_on_a_mesh_has_the_losses_of_one_rank(
    family: str, name: str, one_rank_losses: dict[int, float], tmp_path: Path
) -> None:
    losses = _losses(tmp_path / "run", family, MESHES[name])
    assert losses == pytest.approx(one_rank_losses, rel=2e-6)


@pytest.mark.parametrize("family", SPLIT)
def test_training_in_two_pipeline_stages_loss_falls(family: str, tmp_path: Path) -> None:
    losses = _losses(tmp_path / "run", family, mesh(pipeline=2), tied=False)
    assert list(losses) == [1, 2, 3]
    assert losses[3] < losses[1]


def test_training_in_two_stages_with_shared_sequences_has_the_losses_of_two_stages(
    tmp_path: Path,
) -> None:
    losses = [
        _losses(tmp_path / str(ranks), "llama", mesh(pipeline=2, context=ranks), tied=False)
        for ranks in (1, 2)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=2e-6)


def test_training_on_one_rank_goes_on_from_a_sequence_shared_by_two(tmp_path: Path) -> None:
    shared = _run(tmp_path, "llama", mesh(context=2))
    write_data(shared.layout)
    losses = trained(shared, 2).losses
    folders.remove(Path(shared.layout.checkpoints), STEPS)
    after = trained(_run(tmp_path, "llama", mesh()))
    assert after.restored_step == STEPS - 1
    assert after.losses == pytest.approx({STEPS: losses[STEPS]}, rel=2e-6)
