"""The thread that writes manifests: order, failures."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch.distributed as dist

from pretrain_llm.checkpoints import folders
from pretrain_llm.checkpoints.sealing import Save, Sealer
from pretrain_llm.checkpoints.selection import Identity
from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.curriculum import Consumed
from pretrain_llm.contract.reports import SavedReport

from .test_checkpoints_folders import verified, write_files

IDENTITY = Identity("model", "tokenizer", "data", "run", 1)
POLICY = CheckpointConfig(interval=1, keep_latest=2)


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD
    yield dist.group.WORLD
    dist.destroy_process_group()


@pytest.fixture
def saved() -> list[SavedReport]:
    return []


@pytest.fixture
def sealer(group: dist.ProcessGroup, tmp_path: Path, saved: list[SavedReport]) -> Sealer:
    versions = {"torch": "2"}
    return Sealer(tmp_path, IDENTITY, POLICY, versions, _consumed, group, saved.append)


def _consumed(step: int) -> Consumed:
    return Consumed(samples=8 * step, tokens=256 * step)


def test_sealing_waits_for_the_writing_and_then_reports(
    sealer: Sealer, tmp_path: Path, saved: list[SavedReport]
) -> None:
    write_files(tmp_path, 4)
    written: Future[object] = Future()
    sealer.submit(Save(4, written, 0.0, stall_seconds=0.25))
    assert verified(tmp_path) == []
    written.set_result(None)
    sealer.drain()
    assert verified(tmp_path) == [4]
    (report,) = saved
    assert (report.step, report.stall_seconds) == (4, 0.25)
    assert report.path == str(folders.step_folder(tmp_path, 4))
    manifest = folders.found(tmp_path, 4).manifest
    assert manifest
    assert (manifest.samples, manifest.tokens, manifest.world_size) == (32, 1024, 1)
    assert report.bytes == sum(entry.bytes for entry in manifest.files) > 0


def test_sealing_keeps_the_newest(sealer: Sealer, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_files(tmp_path, step)
        sealer.submit(Save(step, None, 0.0, 0.0))
    sealer.drain()
    assert verified(tmp_path) == [3, 2]


def test_sealing_after_a_failed_save_raises_in_the_step_loop(
    sealer: Sealer, tmp_path: Path, saved: list[SavedReport]
) -> None:
    write_files(tmp_path, 4)
    write_files(tmp_path, 6)
    written: Future[object] = Future()
    written.set_exception(OSError("no space left on device"))
    sealer.submit(Save(4, written, 0.0, 0.0))
    with pytest.raises(OSError, match="no space left"):
        sealer.drain()
    with pytest.raises(OSError, match="no space left"):
        sealer.submit(Save(6, None, 0.0, 0.0))
    assert verified(tmp_path) == []
    assert saved == []
