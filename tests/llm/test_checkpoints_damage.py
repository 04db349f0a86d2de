"""A worker meets checkpoints that are damaged, unfinished or another run's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.layout import MANIFEST
from pretrain_llm.contract.results import StageError

from .runs import changed, mesh, run_config, write_data
from .worlds import trained, world

pytestmark = pytest.mark.usefixtures("warm_workers")


def _run(volume: Path) -> RunConfig:
    return run_config(volume, training={"steps": 6}, checkpoint={"interval": 2, "keep_latest": 3})


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the checkpoints 2, 4 and 6."""
    volume = tmp_path_factory.mktemp("pristine")
    write_data(_run(volume).layout)
    trained(_run(volume))
    return volume


@pytest.fixture
def volume(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "volume"))


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def _flip_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "truncated": (lambda folder: _truncate(folder / "__0_0.distcp"), "bytes instead of"),
    "bit flipped": (lambda folder: _flip_bit(folder / "__0_0.distcp"), "another checksum"),
    "file missing": (lambda folder: (folder / ".metadata").unlink(), ".metadata is missing"),
    "bad manifest": (lambda folder: (folder / MANIFEST).write_text("{"), "not readable"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_quarantined_and_the_one_before_is_used(
    damage: str, volume: Path
) -> None:
    run = _run(volume)
    apply, reason = DAMAGE[damage]
    apply(Path(run.layout.checkpoint(6)))
    workers = trained(run)
    assert workers.restored_step == 4
    assert list(workers.losses) == [5, 6]
    (quarantined,) = [report.quarantined for report in workers.reports if report.quarantined]
    assert quarantined.step == 6
    assert reason in quarantined.reason
    assert Path(quarantined.path) == Path(run.layout.quarantine) / "step-6-1"
    assert reason in (Path(quarantined.path) / "quarantined.txt").read_text()
    assert (Path(run.layout.checkpoint(6)) / MANIFEST).is_file()  # saved anew


def test_damage_seen_by_one_of_two_ranks_is_quarantined_by_both(volume: Path) -> None:
    run = changed(_run(volume), parallelism=mesh(shard=2))
    _flip_bit(Path(run.layout.checkpoint(6)) / "__0_0.distcp")
    assert trained(run, ranks=2).restored_step == 4


def test_all_damaged_starts_from_scratch(volume: Path) -> None:
    run = _run(volume)
    for step in (2, 4, 6):
        _truncate(Path(run.layout.checkpoint(step)) / "__0_0.distcp")
    workers = trained(run)
    assert workers.restored_step == 0
    assert list(workers.losses) == [1, 2, 3, 4, 5, 6]
    assert len(list(Path(run.layout.quarantine).iterdir())) == 3


def test_unfinished_checkpoint_is_removed_and_never_quarantined(volume: Path) -> None:
    run = _run(volume)
    (Path(run.layout.checkpoint(6)) / MANIFEST).unlink()
    (Path(run.layout.checkpoint(6)) / "__7_0.distcp").write_text("of a wider world")
    workers = trained(run)
    assert workers.restored_step == 4
    assert not any(report.quarantined for report in workers.reports)
    assert not Path(run.layout.quarantine).exists()
    assert not (Path(run.layout.checkpoint(6)) / "__7_0.distcp").exists()


def _refused(run: RunConfig) -> StageError:
    with world(run) as workers:
        assert workers.exit_codes() == [exit_codes.BAD_INPUT]
        return workers.error()


def test_checkpoints_of_another_model_are_refused(volume: Path) -> None:
    error = _refused(changed(_run(volume), model={"ffn_hidden_dim": 96}))
    assert error.field == "spec.model"
    assert "checkpoints of another model" in error.message
    assert str(_run(volume).layout.checkpoints) in error.message
    assert error.remedy


def test_checkpoints_of_other_data_are_refused(volume: Path) -> None:
    run = _run(volume)
    shutil.rmtree(run.layout.data)
    write_data(run.layout, seed=5)
    error = _refused(run)
    assert error.field == "spec.data"
    assert "checkpoints of another training data" in error.message


def test_checkpoint_of_another_sequence_length_is_refused(volume: Path) -> None:
    error = _refused(changed(_run(volume), training={"sequence_length": 16}))
    assert error.field == "spec.training.sequenceLength"
    assert "1536 tokens" in error.message


def test_checkpoint_of_another_batch_size_that_does_not_divide_is_refused(volume: Path) -> None:
    error = _refused(changed(_run(volume), training={"global_batch_size": 20}))
    assert error.field == "spec.training.globalBatchSize"
    assert "48 samples" in error.message
