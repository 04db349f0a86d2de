"""Training samples from packed shards, in an order that is a pure function of (seed, position).

The position is the number of samples consumed since step 0. The world size is no input, so a run
resumes, shrinks and grows with the same samples in the same order; its data state is its step.
Numpy only: the training loop's own loader is built around this elsewhere.

    position --epoch--> slot in the epoch --permutation--> sample --offset--> tokens in the shards
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .index import Shard, ShardIndex

Tokens = npt.NDArray[np.int64]

_MASK_64 = (1 << 64) - 1
_ROUNDS = 6  # four make a strong pseudo-random permutation (Luby-Rackoff 1988); two for tiny halves


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
        if start < 0 or start + count > len(self):
            raise IndexError(f"tokens {start} to {start + count} of {len(self)}")
        return np.concatenate([piece.astype(np.int64) for piece in self._pieces(start, count)])

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
    the first is predicted once an epoch.
    """

    def __init__(self, folder: Path, index: ShardIndex, *, sequence_length: int, seed: int) -> None:
        """Raises InputError where there is not one whole sample."""
        check_one_sample(index.train_tokens, sequence_length)
        self._tokens = PackedTokens(folder, index.train, token_bytes=index.token_bytes)
        self._sequence_length = sequence_length
        self._seed = seed

    def __len__(self) -> int:
        """Samples in one epoch."""
        return (len(self._tokens) - 1) // self._sequence_length

    def sample(self, position: int) -> Tokens:
        """The tokens at a position of the run, of any epoch: shape (sequence_length + 1,)."""
        start = sample_index(position, len(self), seed=self._seed) * self._sequence_length
        return self._tokens.read(start, self._sequence_length + 1)


def check_one_sample(train_tokens: int, sequence_length: int) -> None:
    """Raises InputError where the training tokens do not fill one sample."""
    if train_tokens <= sequence_length:
        raise InputError(
            f"the training text has only {train_tokens} tokens; one sample takes "
            f"{sequence_length + 1}",
            field="spec.training.sequenceLength",
            value=sequence_length,
            remedy="Add text to spec.data.sources, or shorten the sequence.",
        )


def step_samples(step: int, *, global_batch_size: int, dp_rank: int, dp_size: int) -> range:
    """Positions that one data-parallel rank trains in the step after `step` finished ones.

    The ranks' ranges, in order of rank, make up the global batch whatever `dp_size` is. Successive
    slices of the local batch size are the micro-batches of gradient accumulation.
    Raises ValueError unless the global batch divides evenly.
    """
    if global_batch_size % dp_size:
        raise ValueError(f"a global batch of {global_batch_size} does not divide by {dp_size}")
    share = global_batch_size // dp_size
    first = step * global_batch_size + dp_rank * share
    return range(first, first + share)


def sample_index(position: int, samples: int, *, seed: int) -> int:
    """Which of an epoch's samples stands at a position; each epoch has its own order."""
    epoch, slot = divmod(position, samples)
    return permuted(slot, samples, key=_mix(_mix(seed) ^ epoch))


def permuted(value: int, size: int, *, key: int) -> int:
    """Image of `value` under the permutation of range(size) that `key` names, in O(1) memory.

    A Feistel network on the smallest even number of bits that holds `size`, walked along its cycle
    until the value is in range: at most 4 walks on average.
    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002, methods 2 and 3.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        value = _feistel(value, half_bits, key)
        if value < size:
            return value


def _feistel(value: int, half_bits: int, key: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (_mix(key + (number << 56) ^ right) & mask)
    return left << half_bits | right


def _mix(value: int) -> int:
    """A 64-bit hash. Source: splitmix64 of Steele, Lea and Flood, OOPSLA 2014."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK_64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK_64
    return value ^ value >> 31
