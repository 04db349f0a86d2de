"""The same run on different meshes: same samples, same weights, so the same losses."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_llm.contract.config import ARCHITECTURES

from .runs import family_model, mesh, run_config, write_data
from .worlds import trained

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 4
MESHES = {
    "fsdp": mesh(shard=2),
    "hsdp": mesh(replicate=2),
    "tensor": mesh(tensor=2),
}

families = pytest.mark.parametrize("family", ARCHITECTURES, scope="module")


def _losses(
    folder: Path, family: str, parallelism: dict[str, int], *, tied: bool = True
) -> dict[int, float]:
    folder.mkdir()
    run = run_config(
        folder,
        model=family_model(family, tie_embeddings=tied),
        parallelism=parallelism,
        training={"steps": STEPS, "local_batch_size": 2},
    )
    write_data(run.layout)
    ranks = 1 if parallelism == mesh() else 2
    return trained(run, ranks).losses


@pytest.fixture(scope="module")
def one_rank_losses(family: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    return _losses(tmp_path_factory.mktemp("one") / "run", family, mesh())


@families
def test_training_one_rank_loss_falls(family: str, one_rank_losses: dict[int, float]) -> None:
    assert list(one_rank_losses) == [1, 2, 3, 4], family
    assert one_rank_losses[4] < 0.98 * one_rank_losses[1]


@families
@pytest.mark.parametrize("name", MESHES)
def test_training_on_a_mesh_has_the_losses_of_one_rank(
    family: str, name: str, one_rank_losses: dict[int, float], tmp_path: Path
) -> None:
    losses = _losses(tmp_path / "run", family, MESHES[name])
    assert losses == pytest.approx(one_rank_losses, abs=5e-6)


@families
def test_training_in_two_pipeline_stages_loss_falls(family: str, tmp_path: Path) -> None:
    losses = _losses(tmp_path / "run", family, mesh(pipeline=2), tied=False)
    assert list(losses) == [1, 2, 3, 4]
    assert losses[4] < losses[1]
