"""Held-out windows and bits per byte, on text whose score is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain_llm.data.index import Shard, ShardIndex
from pretrain_llm.export import heldout

EOS = 0


def _index(folder: Path, tokens: list[int], text_bytes: int) -> ShardIndex:
    np.array(tokens, dtype="<u2").tofile(folder / "0.bin")
    return ShardIndex(2, 16, EOS, "fingerprint", (), (Shard("0.bin", len(tokens)),), text_bytes)


def test_windows_predict_every_token_but_the_first_once(tmp_path: Path) -> None:
    tokens = list(range(1, 16)) * 3
    index = _index(tmp_path, tokens, 45)
    batches = list(heldout.windows(tmp_path, index, length=4))
    assert [batch.inputs.shape for batch in batches] == [(8, 4), (3, 4)]
    assert torch.cat([batch.labels.flatten() for batch in batches]).tolist() == tokens[1:]
    assert torch.cat([batch.inputs.flatten() for batch in batches]).tolist() == tokens[:-1]


def test_windows_shorter_than_the_sequence_are_read_too(tmp_path: Path) -> None:
    index = _index(tmp_path, [5, 6, EOS, 7], 3)
    (only,) = heldout.windows(tmp_path, index, length=64)
    assert only.inputs.tolist() == [[5, 6, EOS]]
    assert only.positions.tolist() == [[0, 1, 2]]


def test_windows_stop_at_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heldout, "MAX_TOKENS", 10)
    index = _index(tmp_path, [1] * 41, 80)
    scored = sum(batch.labels.numel() for batch in heldout.windows(tmp_path, index, length=4))
    assert scored == heldout.scored_tokens(index) == 10
    assert heldout.scored_bytes(index) == 20


def test_bits_per_byte_of_a_uniform_guess_is_the_vocabularys_entropy(tmp_path: Path) -> None:
    index = _index(tmp_path, [3] * 33, text_bytes=64)  # two bytes a token

    def uniform(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return torch.zeros(*tokens.shape, 16)

    assert heldout.bits_per_byte(uniform, tmp_path, index, 8) == pytest.approx(4 / 2)


def test_bits_per_byte_of_a_model_that_knows_is_lower(tmp_path: Path) -> None:
    index = _index(tmp_path, [3] * 33, text_bytes=32)

    def knowing(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 16)
        logits[..., 3] = math.log(15)  # as probable as all others together
        return logits

    assert heldout.bits_per_byte(knowing, tmp_path, index, 8) == pytest.approx(1)
