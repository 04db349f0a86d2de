"""Shards are opened only if they are whole and of the run's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_llm.data.index import INDEX, open_shards, token_bytes
from pretrain_llm.errors import InputError

from . import runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = runs.run_config(tmp_path).layout
    runs.write_data(layout)
    return Path(layout.data)


def fingerprint(folder: Path) -> str:
    return runs.tokenizer.fingerprint(folder.with_name("tokenizer"))


def test_open_shards_whole_returns_index(folder: Path) -> None:
    index = open_shards(folder, fingerprint(folder))
    assert (index.train_tokens, index.heldout_tokens) == (4000, 400)


def test_open_shards_other_tokenizer_names_both(folder: Path) -> None:
    with pytest.raises(InputError, match="another tokenizer than 000000000000") as caught:
        open_shards(folder, "0" * 64)
    error = caught.value
    assert (error.field, error.value) == ("spec.tokenizer", fingerprint(folder)[:12])
    assert "delete the folder" in error.remedy


def test_open_shards_truncated_shard_names_file_and_sizes(folder: Path) -> None:
    path = folder / "train/1.bin"
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(InputError, match="has 3994 bytes instead of 4000") as caught:
        open_shards(folder, fingerprint(folder))
    assert caught.value.value == path


def test_open_shards_lost_shard_names_file(folder: Path) -> None:
    (folder / "heldout/0.bin").unlink()
    with pytest.raises(InputError, match="has 0 bytes instead of 800"):
        open_shards(folder, fingerprint(folder))


def test_open_shards_no_index_names_path(folder: Path) -> None:
    (folder / INDEX).unlink()
    with pytest.raises(InputError, match="no token shards there") as caught:
        open_shards(folder, fingerprint(folder))
    assert caught.value.value == folder / INDEX


def test_open_shards_damaged_index_says_where(folder: Path) -> None:
    (folder / INDEX).write_text('{"tokenBytes": "two"}')
    with pytest.raises(InputError, match="tokenBytes: expected int"):
        open_shards(folder, fingerprint(folder))


@pytest.mark.parametrize(("vocab_size", "width"), [(256, 2), (65_536, 2), (65_537, 4)])
def test_token_bytes_vocabulary_fits(vocab_size: int, width: int) -> None:
    assert token_bytes(vocab_size) == width
