"""One worker process: what it refuses, what it reports, what its settings change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.config import WandbConfig
from pretrain_llm.contract.results import StageError

from .runs import VOCAB_SIZE, mesh, run_config, write_data
from .worlds import trained, world

pytestmark = pytest.mark.usefixtures("warm_workers")


def _failed(volume: Path, exit_code: int, ranks: int = 1, **changes: Any) -> StageError:
    with world(run_config(volume, **changes), ranks) as workers:
        assert workers.exit_codes() == [exit_code] * ranks
        assert not workers.reports
        return workers.error()


def _refused(volume: Path, ranks: int = 1, **changes: Any) -> StageError:
    return _failed(volume, exit_codes.BAD_INPUT, ranks, **changes)


def test_worker_more_ranks_than_the_mesh_is_refused(volume: Path) -> None:
    error = _refused(volume, ranks=2, parallelism=mesh())
    assert error.field == "spec.parallelism"
    assert "there are 2 workers" in error.message


def test_worker_without_finished_data_is_refused(volume: Path) -> None:
    layout = run_config(volume).layout
    (Path(layout.data) / "manifest.json").unlink()
    error = _refused(volume)
    assert error.field == "spec.data"
    assert error.value == str(layout.data)


def test_worker_with_shards_of_another_tokenizer_is_refused(volume: Path) -> None:
    path = Path(run_config(volume).layout.tokenizer) / "tokenizer.json"
    path.write_text(path.read_text().replace('"w100"', '"other"'))
    assert _refused(volume).field == "spec.tokenizer"


def test_worker_with_a_tokenizer_larger_than_the_model_is_refused(volume: Path) -> None:
    error = _refused(volume, model={"vocab_size": VOCAB_SIZE - 1})
    assert error.field == "spec.model.vocabSize"
    assert str(VOCAB_SIZE) in (error.remedy or "")


def test_worker_with_fewer_tokens_than_a_sequence_is_refused(tmp_path: Path) -> None:
    write_data(run_config(tmp_path).layout, tokens=32)
    assert _refused(tmp_path).field == "spec.training.sequenceLength"


def test_worker_without_the_device_is_refused(volume: Path) -> None:
    nodes = {"device": "cuda"}
    assert _refused(volume, nodes=nodes).field == "spec.nodes.deviceResource"


def test_worker_model_larger_than_memory_says_so(volume: Path) -> None:
    model = {"ffn_hidden_dim": 1 << 42}  # a petabyte
    error = _failed(volume, exit_codes.OUT_OF_MEMORY, model=model)
    assert error.kind == "DeviceMemoryError"
    assert "can't allocate memory" in error.message


def test_worker_reports_every_step_with_tokens_and_rates(volume: Path) -> None:
    reports = trained(run_config(volume, training={"steps": 3})).reports
    assert reports[0].restored
    steps = [report.step for report in reports if report.step]
    assert [step.step for step in steps] == [1, 2, 3]
    last = steps[-1]
    assert last.tokens == 3 * 8 * 32
    assert last.tokens_per_second == pytest.approx(8 * 32 / last.seconds)
    assert last.loss != round(last.loss, 5)  # not what the log line shows
    assert last.gradient_norm
    assert last.mfu is None  # a CPU's peak is not known
    saving = [(report.saving.step, report.saving.over) for report in reports if report.saving]
    assert saving == [(2, False), (2, True), (3, False)]  # the last one is waited for
    stalls = [report.saved.stall_seconds for report in reports if report.saved]
    assert len(stalls) == 2
    assert all(0 < stall < 5 for stall in stalls)


def test_worker_writes_offline_wandb_files_below_the_logs(volume: Path) -> None:
    wandb = WandbConfig(project="tests", mode="offline")
    run = run_config(volume, training={"steps": 2, "wandb": wandb})
    trained(run)
    (file,) = Path(run.layout.logs).rglob("*.wandb")
    assert Path(run.layout.wandb_id).read_text() in file.name
    assert file.stat().st_size > 0


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_activation_checkpointing_changes_no_loss(kind: str, volume: Path) -> None:
    def losses(checkpointing: str) -> dict[int, float]:
        training = {"steps": 3, "activation_checkpointing": checkpointing}
        run = run_config(volume, training=training)
        shutil.rmtree(run.layout.checkpoints, ignore_errors=True)
        return trained(run).losses

    assert losses(kind) == losses("none")


def test_bfloat16_trains_close_to_float32(volume: Path) -> None:
    def losses(precision: str) -> dict[int, float]:
        run = run_config(volume, precision, training={"steps": 4, "precision": precision})
        write_data(run.layout)
        return trained(run).losses

    half, full = losses("bfloat16"), losses("float32")
    assert half == pytest.approx(full, abs=0.05)
    assert half != full


def test_local_batch_size_changes_no_loss(volume: Path) -> None:
    def losses(local_batch_size: int) -> dict[int, float]:
        training = {"steps": 3, "local_batch_size": local_batch_size}
        run = run_config(volume, f"batch-{local_batch_size}", training=training)
        write_data(run.layout)
        return trained(run).losses

    assert losses(2) == pytest.approx(losses(8), abs=5e-6)


def test_seed_changes_weights_and_order(volume: Path) -> None:
    first, second = (trained(_seeded(volume, seed)).losses[1] for seed in (1, 2))
    assert first != second


def _seeded(volume: Path, seed: int) -> Any:
    run = run_config(volume, f"seed-{seed}", training={"steps": 1, "seed": seed})
    write_data(run.layout)
    return run
