"""The same run on different meshes: same samples, same weights, so the same losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .runs import mesh, run_config, write_data
from .worlds import trained

pytestmark = pytest.mark.usefixtures("warm_workers")

STEPS = 4
MESHES = {
    "fsdp": mesh(shard=2),
    "hsdp": mesh(replicate=2),
    "tensor": mesh(tensor=2),
}


def _losses(folder: Path, parallelism: dict[str, int], **changes: Any) -> dict[int, float]:
    folder.mkdir()
    run = run_config(
        folder,
        parallelism=parallelism,
        training={"steps": STEPS, "local_batch_size": 2},
        **changes,
    )
    write_data(run.layout)
    ranks = 1 if parallelism == mesh() else 2
    return trained(run, ranks).losses


@pytest.fixture(scope="module")
def one_rank_losses(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    return _losses(tmp_path_factory.mktemp("one") / "run", mesh())


def test_training_one_rank_loss_falls(one_rank_losses: dict[int, float]) -> None:
    assert list(one_rank_losses) == [1, 2, 3, 4]
    assert one_rank_losses[4] < 0.75 * one_rank_losses[1]


@pytest.mark.parametrize("name", MESHES)
def test_training_on_a_mesh_has_the_losses_of_one_rank(
    name: str, one_rank_losses: dict[int, float], tmp_path: Path
) -> None:
    losses = _losses(tmp_path / "run", MESHES[name])
    assert losses == pytest.approx(one_rank_losses, abs=5e-6)


def test_training_in_two_pipeline_stages_loss_falls(tmp_path: Path) -> None:
    losses = _losses(tmp_path / "run", mesh(pipeline=2), model={"tie_embeddings": False})
    assert list(losses) == [1, 2, 3, 4]
    assert losses[4] < losses[1]
