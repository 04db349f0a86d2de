"""Operations on step folders, killed at every change they make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pretrain_llm import artifacts
from pretrain_llm.checkpoints import folders
from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.layout import MANIFEST
from pretrain_llm.contract.manifests import CheckpointManifest

from .killing import kills

pytestmark = pytest.mark.usefixtures("warm_workers")  # whose fork server starts what is killed


def manifest_of(root: Path, step: int) -> CheckpointManifest:
    files = artifacts.entries(folders.step_folder(root, step))
    return CheckpointManifest(step, 0, 0, 2, "model", "tokenizer", "data", "run", 0.0, {}, files)


def write_files(root: Path, step: int) -> None:
    folder = folders.step_folder(root, step)
    folder.mkdir(parents=True)
    for name in (".metadata", "__0_0.distcp", "__1_0.distcp"):
        (folder / name).write_text(f"{name} of {step}")


def write_checkpoint(root: Path, step: int) -> None:
    write_files(root, step)
    folders.write_manifest(root, manifest_of(root, step))


def verified(root: Path) -> list[int]:
    """Steps with a manifest; fails where one does not tell the truth."""
    items = [item for item in folders.scan(root) if item.manifest]
    for item in items:
        assert item.manifest
        assert not artifacts.mismatches(folders.step_folder(root, item.step), item.manifest.files)
    return [item.step for item in items]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def test_scan_tells_finished_unfinished_and_damaged_apart(root: Path) -> None:
    write_checkpoint(root, 2)
    write_files(root, 10)
    write_checkpoint(root, 9)
    (folders.step_folder(root, 9) / MANIFEST).write_text("no json")
    shutil.copytree(folders.step_folder(root, 2), folders.step_folder(root, 3))
    (root / "quarantine" / "step-1-1").mkdir(parents=True)
    (root / "step-4.tmp").mkdir()
    items = folders.scan(root)
    assert [item.step for item in items] == [10, 9, 3, 2]
    assert [bool(item.manifest) for item in items] == [False, False, False, True]
    damage = [item.damage or "" for item in items]
    assert damage[0] == damage[3] == ""
    assert "not JSON" in damage[1]
    assert damage[2] == f"{MANIFEST} is of step 2"


def test_scan_of_a_new_run_finds_nothing(root: Path) -> None:
    assert folders.scan(root) == ()


def test_owned_entries_of_all_ranks_are_the_folder(root: Path) -> None:
    write_checkpoint(root, 2)
    folder = folders.step_folder(root, 2)
    owned = [folders.owned_entries(folder, rank) for rank in range(3)]
    assert [[entry.path for entry in entries] for entries in owned] == [
        [".metadata", "__0_0.distcp"],
        ["__1_0.distcp"],
        [],
    ]
    assert sorted(sum(owned, ()), key=lambda e: e.path) == list(artifacts.entries(folder))


def test_retention_keeps_the_newest_and_removes_older_leftovers(root: Path) -> None:
    for step in (2, 4, 6, 8):
        write_checkpoint(root, step)
    write_files(root, 5)
    write_files(root, 10)  # being saved right now
    folders.apply_retention(root, CheckpointConfig(interval=2, keep_latest=2))
    assert folders.steps(root) == (6, 8, 10)


def test_quarantine_of_the_same_step_twice_keeps_both(root: Path) -> None:
    targets = []
    for reason in ("first", "second"):
        write_checkpoint(root, 4)
        targets.append(folders.quarantine(root, 4, reason))
    assert [target.name for target in targets] == ["step-4-1", "step-4-2"]
    assert [(target / folders.REASON).read_text() for target in targets] == ["first\n", "second\n"]
    assert folders.steps(root) == ()


def test_retention_killed_at_any_change_leaves_only_whole_checkpoints(root: Path) -> None:
    def prepare() -> tuple[Path, CheckpointConfig]:
        shutil.rmtree(root, ignore_errors=True)
        for step in (2, 4, 6):
            write_checkpoint(root, step)
        return root, CheckpointConfig(interval=2, keep_latest=1)

    count = 0
    for _ in kills(prepare, folders.apply_retention):
        count += 1
        assert verified(root)[0] == 6
        folders.remove_unfinished(root, folders.scan(root))  # the next start
        assert set(folders.steps(root)) == set(verified(root))
    assert count > 6
    assert folders.steps(root) == (6,)


def test_manifest_killed_at_any_change_is_whole_or_absent(root: Path) -> None:
    def prepare() -> tuple[Path, CheckpointManifest]:
        shutil.rmtree(root, ignore_errors=True)
        write_checkpoint(root, 2)
        write_files(root, 4)
        return root, manifest_of(root, 4)

    count = 0
    for _ in kills(prepare, folders.write_manifest):
        count += 1
        assert verified(root) in ([2], [4, 2])
        assert not any(item.damage for item in folders.scan(root))
    assert count >= 3
    assert verified(root) == [4, 2]


def test_quarantine_killed_at_any_change_is_done_or_can_be_done_again(root: Path) -> None:
    def prepare() -> tuple[Path, int, str]:
        shutil.rmtree(root, ignore_errors=True)
        write_checkpoint(root, 2)
        write_checkpoint(root, 4)
        (folders.step_folder(root, 4) / ".metadata").write_text("damaged")
        return root, 4, "another checksum"

    count = 0
    for _ in kills(prepare, folders.quarantine):
        count += 1
        if 4 in folders.steps(root):
            manifest = folders.found(root, 4).manifest
            assert manifest
            assert artifacts.mismatches(folders.step_folder(root, 4), manifest.files)
            folders.quarantine(root, 4, "again")
        assert verified(root) == [2]
        assert [path.name for path in (root / "quarantine").iterdir()] == ["step-4-1"]
    assert count >= 4
