"""The mean of several checkpoints: exact, of what belongs together, verified before it is read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from pretrain_llm import artifacts
from pretrain_llm.checkpoints import folders
from pretrain_llm.contract.config import IngredientConfig, RunConfig, SegmentConfig
from pretrain_llm.errors import InputError
from pretrain_llm.export import mean
from pretrain_llm.export.work import export

from .runs import changed, run_config, write_data
from .worlds import trained

pytestmark = [
    pytest.mark.usefixtures("warm_workers"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]

OWN_6 = IngredientConfig(1.0)
OWN_3 = IngredientConfig(2.0, step=3)
OTHER = IngredientConfig(1.0, run="other")


def _run(volume: Path, name: str, seed: int) -> RunConfig:
    training = {"steps": 6, "seed": seed}
    checkpoint = {"interval": 3, "keep_latest": 2}
    return run_config(volume, name, training=training, checkpoint=checkpoint)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the checkpoints 3 and 6 of two runs, "this" and "other"."""
    volume = tmp_path_factory.mktemp("pristine")
    for name, seed in (("this", 1), ("other", 2)):
        run = _run(volume, name, seed)
        write_data(run.layout)
        trained(run)
    return volume


@pytest.fixture
def volume(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "volume"))


def _soup(volume: Path, *ingredients: IngredientConfig) -> RunConfig:
    return changed(_run(volume, "this", 1), export={"soup": ingredients})


def _step(volume: Path, name: str, step: int) -> Path:
    return Path(_run(volume, name, 0).layout.checkpoint(step))


def _weights(folder: Path) -> mean.Weights:
    entries = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    weights = {
        name: torch.empty(entry.size)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata) and not name.startswith("optimizer")
    }
    dcp.load(weights, checkpoint_id=folder, no_dist=True)
    return weights


def test_mean_read_in_parts_is_the_mean_by_hand_to_the_last_bit(pristine: Path) -> None:
    steps = [_step(pristine, "this", 3), _step(pristine, "this", 6), _step(pristine, "other", 6)]
    given = [_weights(step) for step in steps]
    found = {name: torch.empty_like(tensor) for name, tensor in given[0].items()}
    mean.load(found, dict(zip(steps, (0.5, 0.25, 0.25), strict=True)), limit_bytes=20_000)
    assert len(list(mean.parts(found, 20_000))) > 2
    for name, tensor in found.items():
        by_hand = 0.5 * given[0][name] + 0.25 * given[1][name] + 0.25 * given[2][name]
        assert torch.equal(tensor, by_hand), name
        assert not torch.equal(given[0][name], given[2][name]) or "norm" in name


def test_exported_soup_has_the_mean_and_says_of_what(volume: Path) -> None:
    alone = export(_run(volume, "this", 1))
    result = export(_soup(volume, OWN_3, OWN_6, OTHER))
    name = "model.layers.1.mlp.down_proj.weight"
    key = "layers.1.feed_forward.w2.weight"
    steps = [_step(volume, "this", 3), _step(volume, "this", 6), _step(volume, "other", 6)]
    first, second, third = (_weights(step)[key] for step in steps)
    found = load_file(Path(result.path) / "model.safetensors")[name]
    assert torch.equal(found, 0.5 * first + 0.25 * second + 0.25 * third)
    assert result.mean_of == ("this step 3 (0.5)", "this step 6 (0.25)", "other step 6 (0.25)")
    assert len(set(result.source_digests)) == 3
    assert (result.step, result.path) == (alone.step, alone.path)
    assert result.digest != alone.digest
    assert alone.mean_of == ()
    assert artifacts.verified_manifest(Path(result.path), field="test").mean_of == result.mean_of


def test_soup_finished_before_is_not_made_again_but_of_other_shares_it_is(volume: Path) -> None:
    first = export(_soup(volume, OWN_6, OTHER))
    assert export(_soup(volume, OWN_6, OTHER)) == first
    assert export(_soup(volume, OWN_3, OTHER)).digest != first.digest


def _refused(run: RunConfig, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        export(run)
    assert caught.value.field == "spec.export.soup.ingredients"
    for word in words:
        assert word in str(caught.value)


def test_soup_of_a_run_without_checkpoints_is_refused(volume: Path) -> None:
    gone = IngredientConfig(1.0, run="gone")
    _refused(_soup(volume, OWN_6, gone), "no finished checkpoint", "gone", "Let that run finish")


def test_soup_of_a_step_that_is_not_there_names_those_that_are(volume: Path) -> None:
    _refused(_soup(volume, OWN_6, IngredientConfig(1.0, "other", 5)), "other step 5", "6, 3")


def test_soup_with_a_checkpoint_under_two_names_is_refused(volume: Path) -> None:
    _refused(_soup(volume, OWN_6, IngredientConfig(1.0, "this", 6)), "this step 6", "twice")


def test_soup_of_another_model_or_tokenizer_is_refused_before_it_is_read(volume: Path) -> None:
    root = _step(volume, "other", 6).parent
    manifest = folders.found(root, 6).manifest
    assert manifest
    (_step(volume, "other", 6) / "__0_0.distcp").unlink()
    for name in ("model", "tokenizer"):
        folders.write_manifest(root, replace(manifest, **{f"{name}_fingerprint": "0" * 64}))
        _refused(_soup(volume, OWN_6, OTHER), f"other step 6 is of another {name}, 000")
    folders.write_manifest(root, manifest)
    _refused(_soup(volume, OWN_6, OTHER), "is damaged: __0_0.distcp is missing")


def test_soup_of_own_steps_with_another_rotation_is_refused(volume: Path) -> None:
    run = _soup(volume, OWN_3, OWN_6)
    turned = changed(run, training={"curriculum": (SegmentConfig(4, rope_theta=5e5),)})
    _refused(turned, "ropeTheta 10000", "500000")


def test_mean_of_checkpoints_with_other_shapes_is_refused_before_it_is_read(pristine: Path) -> None:
    steps = [_step(pristine, "this", 6), _step(pristine, "other", 6)]
    weights = {"norm.weight": torch.zeros(65)}
    with pytest.raises(InputError, match=r"norm.weight is \(64,\), not \(65,\)"):
        mean.load(weights, dict.fromkeys(steps, 0.5))
    assert weights["norm.weight"].eq(0).all()
