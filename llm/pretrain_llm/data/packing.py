"""Tokenised documents to shards: split by hash, shuffle by seed, write. Reads no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .index import Shard
from .tokenise import TokenisedTask

MAX_SHARD_TOKENS = 1 << 28  # half a GiB of uint16


@dataclass(frozen=True)
class Documents:
    """All documents in order of task; every array has shape (documents,)."""

    task: npt.NDArray[np.int64]
    start: npt.NDArray[np.uint64]  # in the task's tokens
    end: npt.NDArray[np.uint64]
    hash: npt.NDArray[np.uint64]
    bytes: npt.NDArray[np.uint64]
    source: npt.NDArray[np.uint64]  # number of the source

    def __len__(self) -> int:
        return len(self.task)


def documents(tasks: list[TokenisedTask]) -> Documents:
    ends = [task.ends for task in tasks]
    starts = [np.concatenate([np.zeros(1, np.uint64), end])[:-1] for end in ends]
    ledger = np.concatenate([task.ledger for task in tasks])
    return Documents(
        task=np.repeat(np.arange(len(tasks)), [len(end) for end in ends]),
        start=np.concatenate(starts),
        end=np.concatenate(ends),
        hash=ledger["hash"],
        bytes=ledger["bytes"],
        source=ledger["source"],
    )


def heldout_limit(hashes: npt.NDArray[np.uint64], fraction: float) -> int:
    """Documents whose hash is at most this are held out: about `fraction`, one at least.

    One at least stays for training. The seed has no part, so that runs compare on the same text.
    Raises InputError where all documents are equal.
    """
    lowest, highest = int(hashes.min()), int(hashes.max())
    if lowest == highest:
        raise InputError(
            "at least two different documents are needed: one to train on, one held out",
            field="spec.data.sources",
            value=f"{len(hashes)} document(s)",
            remedy="Split the text into documents, or add some.",
        )
    wanted = int(fraction * 2**64)
    below = int(hashes[hashes < highest].max())
    return max(lowest, min(wanted, below))


def training_order(members: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Documents are shuffled once, so that a sample's neighbours are of other files."""
    return np.random.default_rng(seed).permutation(members)


def write_sources(
    folder: Path,
    names: Sequence[str],
    tasks: list[TokenisedTask],
    every: Documents,
    order: npt.NDArray[np.int64],
) -> tuple[Shard, ...]:
    """The training split, each source in shards of its own. A source may have none."""
    return tuple(
        replace(shard, source=name)
        for number, name in enumerate(names)
        if len(own := order[every.source[order] == number])
        for shard in write_shards(folder, f"train/{name}", tasks, every, own)
    )


def write_shards(
    folder: Path,
    split: str,
    tasks: list[TokenisedTask],
    every: Documents,
    order: npt.NDArray[np.int64],
    *,
    max_tokens: int = MAX_SHARD_TOKENS,
) -> tuple[Shard, ...]:
    """Writes the documents in this order, whole ones, into shards of about `max_tokens`."""
    (folder / split).mkdir(parents=True)
    ends = np.cumsum(every.end[order] - every.start[order])
    number = (ends - 1) // max_tokens  # the shard in which each document ends
    pieces = np.split(order, np.flatnonzero(np.diff(number)) + 1)
    return tuple(
        _write(folder, f"{split}/{shard:05d}.bin", tasks, every, piece)
        for shard, piece in enumerate(pieces)
    )


def _write(
    folder: Path,
    name: str,
    tasks: list[TokenisedTask],
    every: Documents,
    members: npt.NDArray[np.int64],
) -> Shard:
    tokens = 0
    with (folder / name).open("wb") as file:
        for document in members:
            source = tasks[every.task[document]].tokens
            piece = source[int(every.start[document]) : int(every.end[document])]
            file.write(piece.tobytes())
            tokens += len(piece)
    return Shard(name, tokens)
