"""The rules: which checkpoint may be loaded, which folders may go, who hashes what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pretrain_llm.checkpoints.selection import (
    Identity,
    abandoned,
    check_origin,
    share,
    superseded,
)
from pretrain_llm.contract.config import CheckpointConfig
from pretrain_llm.contract.manifests import CheckpointManifest, FileEntry
from pretrain_llm.errors import InputError

OURS = Identity("model-1", "tokenizer-1", "data-1", "run-1", 2)
THEIRS = CheckpointManifest(
    4, 1024, 32, 2, "model-1", "tokenizer-1", "data-1", "run-1", 0.0, {}, ()
)


@pytest.mark.parametrize(
    ("verified", "keep_latest", "expected"),
    [
        ((), 3, ()),
        ((10,), 3, ()),
        ((10, 20, 30), 3, ()),
        ((10, 20, 30, 40), 3, (10,)),
        ((40, 10, 30, 20), 2, (10, 20)),
        ((10, 20), 1, (10,)),
        ((10, 20), 0, (10,)),  # never the only verified one
        ((9, 10, 100), 2, (9,)),  # by number, not by name
    ],
)
def test_superseded(verified: tuple[int, ...], keep_latest: int, expected: tuple[int, ...]) -> None:
    assert superseded(verified, CheckpointConfig(keep_latest, interval=10)) == expected


@pytest.mark.parametrize(
    ("verified", "expected"),
    [
        ((0, 1, 2, 3, 4, 5, 6), (3,)),  # 0, 1, 2, 4: listed; 5, 6: the newest
        ((0, 7, 1000, 1500, 2000, 2001, 2002), (7, 1500)),  # multiples of 1000 too
        ((0, 1, 2), ()),
    ],
)
def test_superseded_leaves_the_steps_to_keep_for_good(
    verified: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    policy = CheckpointConfig(2, keep_steps=(0, 1, 2, 4), keep_every=1000)
    assert superseded(verified, policy) == expected


def test_pythias_154_checkpoints_are_eleven_steps_and_a_thousand() -> None:
    """Biderman et al. 2023, section 2.1: 0, 1, 2, 4, ..., 512, then every 1,000 to 143,000."""
    policy = CheckpointConfig(2, keep_steps=(0, *(2**n for n in range(10))), keep_every=1000)
    kept = [step for step in range(143_001) if policy.keeps(step)]
    assert len(kept) == 154
    assert kept[:12] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]


@pytest.mark.parametrize(
    ("unfinished", "verified", "expected"),
    [
        ((), (), ()),
        ((10,), (), ()),  # the first save is under way
        ((20,), (10,), ()),  # the next one is
        ((10,), (20,), (10,)),
        ((5, 30, 15), (10, 20), (5, 15)),
    ],
)
def test_abandoned(
    unfinished: tuple[int, ...], verified: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert abandoned(unfinished, verified) == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model_fingerprint": "model-2"}, "spec.model"),
        ({"tokenizer_fingerprint": "tokenizer-2"}, "spec.tokenizer"),
        ({"data_digest": "data-2"}, "spec.data"),
    ],
)
def test_checkpoint_of_another_origin_is_refused(change: dict[str, str], field: str) -> None:
    with pytest.raises(InputError, match="/volume/run/checkpoints holds") as caught:
        check_origin(replace(THEIRS, **change), OURS, "/volume/run/checkpoints")
    assert caught.value.field == field
    assert "-2, not" in str(caught.value)
    assert "-1" in str(caught.value)
    assert "under another name" in caught.value.remedy


def test_checkpoint_of_another_configuration_or_world_is_taken() -> None:
    check_origin(replace(THEIRS, config_digest="run-2", world_size=8), OURS, "folder")


def test_shares_of_all_ranks_are_the_files_and_about_equal() -> None:
    sizes = [50, 40, 30, 20, 10, 10, 0, 0]
    files = [FileEntry(f"file-{n}", size, "") for n, size in enumerate(sizes)]
    shares = [share(files, rank, 2) for rank in range(2)]
    assert sorted(entry.path for mine in shares for entry in mine) == [f.path for f in files]
    assert [sum(entry.bytes for entry in mine) for mine in shares] == [80, 80]


def test_share_of_a_rank_without_a_file_is_empty() -> None:
    assert share([FileEntry("only", 5, "")], rank=1, ranks=2) == ()
