"""Training samples from packed shards, in an order that is a pure function of (seed, position).

The position is the number of samples consumed since step 0. The world size is no input, so a run
resumes, shrinks and grows with the same samples in the same order; its data state is its step.
Numpy only: the training loop's own loader is built around this elsewhere.

    position --mixture--> position in a source --epoch--> slot in the epoch
    --permutation--> sample --offset--> tokens in the shards
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .index import Shard, ShardIndex
from .mixture import Mixture
from .permutation import mixed, permuted

Tokens = npt.NDArray[np.int64]


class PackedTokens:
    """The memory-mapped shards of one split, read as one long stream of tokens."""

    def __init__(self, folder: Path, shards: tuple[Shard, ...], *, token_bytes: int) -> None:
        dtype = np.dtype(f"<u{token_bytes}")
        filled = [shard for shard in shards if shard.tokens]
        self._maps = [np.memmap(folder / shard.path, dtype, mode="r") for shard in filled]
        self._ends = list(accumulate(shard.tokens for shard in filled))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, count: int) -> Tokens:
        """`count` tokens from `start`, across shard borders: shape (count,).

        Raises IndexError past the end.
        """
        tokens = np.empty(count, np.int64)
        self.read_into(tokens, start)
        return tokens

    def read_into(self, tokens: Tokens, start: int) -> None:
        """Fills `tokens`, of one dimension. Raises IndexError past the end."""
        count = len(tokens)
        if start < 0 or start + count > len(self):
            raise IndexError(f"tokens {start} to {start + count} of {len(self)}")
        filled = 0
        for piece in self._pieces(start, count):
            tokens[filled : filled + len(piece)] = piece
            filled += len(piece)

    def _pieces(self, start: int, count: int) -> Iterator[npt.NDArray[np.unsignedinteger]]:
        shard = bisect_right(self._ends, start)
        while count > 0:
            offset = start - (self._ends[shard - 1] if shard else 0)
            piece = self._maps[shard][offset : offset + count]
            yield piece
            start, count, shard = start + len(piece), count - len(piece), shard + 1


class PackedDataset:
    """Samples of `sequence_length` + 1 tokens (inputs and the shifted labels), for ever.

    A sample starts where the one before ends; neighbours share one token, so that every token but
    the first is predicted once an epoch. With weights each source has epochs of its own, and the
    mixture says whose turn it is; without, all sources are one stream.
    """

    def __init__(
        self,
        folder: Path,
        index: ShardIndex,
        *,
        sequence_length: int,
        seed: int,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """`weights` are by name of the source. Raises InputError where a sample is not filled."""
        streams = _streams(index, weights)
        for name, shards in streams.items():
            check_one_sample(sum(shard.tokens for shard in shards), sequence_length, name)
        self._streams = [
            PackedTokens(folder, shards, token_bytes=index.token_bytes)
            for shards in streams.values()
        ]
        self._mixture = Mixture([weights[name] for name in streams], seed=seed) if weights else None
        self._sequence_length = sequence_length
        self._seed = seed

    def sample(self, position: int) -> Tokens:
        """The tokens at a position of the run, of any epoch: shape (sequence_length + 1,)."""
        (tokens,) = self.samples(range(position, position + 1))
        return tokens

    def samples(self, positions: range) -> Tokens:
        """Those at several positions: shape (positions, sequence_length + 1)."""
        rows = np.empty((len(positions), self._sequence_length + 1), np.int64)
        for row, position in zip(rows, positions, strict=True):
            self._read_sample(row, position)
        return rows

    def _read_sample(self, row: Tokens, position: int) -> None:
        source, number = self._mixture.place(position) if self._mixture else (0, position)
        stream = self._streams[source]
        samples = (len(stream) - 1) // self._sequence_length
        start = sample_index(number, samples, seed=self._seed + source) * self._sequence_length
        stream.read_into(row, start)


def _streams(
    index: ShardIndex, weights: Mapping[str, float] | None
) -> dict[str, tuple[Shard, ...]]:
    """Shards that are read as one: a source's with weights, all without."""
    if not weights:
        return {"": index.train}
    return {name: tuple(s for s in index.train if s.source == name) for name in weights}


def check_one_sample(train_tokens: int, sequence_length: int, source: str = "") -> None:
    """Raises InputError where the training tokens, of one source or all, do not fill one sample."""
    if train_tokens <= sequence_length:
        of = f" of {source}" if source else ""
        raise InputError(
            f"the training text{of} has only {train_tokens} tokens; one sample takes "
            f"{sequence_length + 1}",
            field="spec.training.sequenceLength",
            value=sequence_length,
            remedy="Add text to spec.data.sources, or shorten the sequence.",
        )


def batch_samples(first: int, *, global_batch_size: int, dp_rank: int, dp_size: int) -> range:
    """Positions that one data-parallel rank trains of the global batch that starts at `first`.

    The ranks' ranges, in order of rank, make up the global batch whatever `dp_size` is. Successive
    slices of the local batch size are the micro-batches of gradient accumulation.
    Raises ValueError unless the global batch divides evenly.
    """
    if global_batch_size % dp_size:
        raise ValueError(f"a global batch of {global_batch_size} does not divide by {dp_size}")
    share = global_batch_size // dp_size
    return range(first + dp_rank * share, first + (dp_rank + 1) * share)


def order_seed(seed: int, order: int) -> int:
    """Of a run's data order; the first has the run's own."""
    return mixed(mixed(seed) ^ order) if order else seed


def sample_index(position: int, samples: int, *, seed: int) -> int:
    """Which of an epoch's samples stands at a position; each epoch has its own order."""
    epoch, slot = divmod(position, samples)
    return permuted(slot, samples, key=mixed(mixed(seed) ^ epoch))
