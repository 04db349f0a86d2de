"""The held-out text, read as training reads text: windows in which documents do not see each other.

Scores in bits a byte of text, which models with different tokenizers can be compared by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.index import ShardIndex
from ..data.packed import PackedTokens
from ..training.documents import document_positions

# About 0.5 MB of text: the standard error of the mean is then some 0.1 %.
MAX_TOKENS = 1 << 17
BATCH = 8  # windows

Logits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Windows:
    """Some windows of one length, all (batch, length): tokens, what follows each, positions."""

    inputs: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor


def windows(folder: Path, index: ShardIndex, length: int) -> Iterator[Windows]:
    """Batches that predict every held-out token but the first once, up to MAX_TOKENS of them."""
    tokens = PackedTokens(folder, index.heldout, token_bytes=index.token_bytes)
    scored = scored_tokens(index)
    for start in range(0, scored, length * BATCH):
        count = min(length * BATCH, scored - start)
        whole, rest = divmod(count, length)
        if whole:
            yield _windows(tokens, start, whole, length, index.eos_id)
        if rest:
            yield _windows(tokens, start + whole * length, 1, rest, index.eos_id)


def scored_tokens(index: ShardIndex) -> int:
    return min(MAX_TOKENS, index.heldout_tokens - 1)


def scored_bytes(index: ShardIndex) -> float:
    """Bytes of the scored tokens' text: their share of the split's."""
    return index.heldout_bytes * scored_tokens(index) / (index.heldout_tokens - 1)


def _windows(tokens: PackedTokens, start: int, count: int, length: int, eos_id: int) -> Windows:
    stream = torch.from_numpy(tokens.read(start, count * length + 1))
    inputs = stream[:-1].view(count, length)
    return Windows(inputs, stream[1:].view(count, length), document_positions(inputs, eos_id))


def bits_per_byte(logits: Logits, folder: Path, index: ShardIndex, length: int) -> float:
    """Predicting the end of a document costs bits too, and stands for no byte."""
    nats = 0.0
    for batch in windows(folder, index, length):
        scores = logits(batch.inputs, batch.positions).flatten(0, 1)
        labels = batch.labels.flatten()
        nats += torch.nn.functional.cross_entropy(scores, labels, reduction="sum").item()
    return nats / math.log(2) / scored_bytes(index)
