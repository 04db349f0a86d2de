"""Training samples: their order depends on seed and position, on nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain_llm.data.index import Shard, ShardIndex
from pretrain_llm.data.packed import (
    PackedDataset,
    PackedTokens,
    batch_samples,
    sample_index,
)
from pretrain_llm.data.permutation import permuted
from pretrain_llm.errors import InputError


def write_index(folder: Path, *sizes: int, width: int = 2) -> ShardIndex:
    """Shards whose tokens count up from 0 through all of them."""
    (folder / "train").mkdir(parents=True)
    first, shards = 0, []
    for number, size in enumerate(sizes):
        name = f"train/{number}.bin"
        np.arange(first, first + size).astype(f"<u{width}").tofile(folder / name)
        shards.append(Shard(name, size))
        first += size
    return ShardIndex(width, 50_000, 0, "f" * 64, tuple(shards), (), 0)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 17, 255, 256, 257, 1001, 4099])
def test_permuted_any_size_is_a_bijection(size: int) -> None:
    assert sorted(permuted(value, size, key=7) for value in range(size)) == list(range(size))


def test_permuted_many_billions_stays_in_range() -> None:
    size = 37 * 10**12 + 11
    images = {permuted(value, size, key=3) for value in range(2000)}
    assert len(images) == 2000
    assert max(images) < size
    # Spread evenly: the mean of 2000 draws is within 5 standard errors of the middle.
    assert abs(float(np.mean([image / size for image in images])) - 0.5) < 5 * 0.289 / 2000**0.5


def test_sample_index_same_seed_repeats() -> None:
    orders = [[sample_index(p, 101, seed=5) for p in range(101)] for _ in range(2)]
    assert orders[0] == orders[1]


def test_sample_index_other_seed_differs() -> None:
    one, two = ([sample_index(p, 101, seed=seed) for p in range(101)] for seed in (1, 2))
    assert one != two


def test_sample_index_each_epoch_takes_all_in_another_order() -> None:
    epochs = [[sample_index(p, 101, seed=1) for p in range(e * 101, e * 101 + 101)] for e in (0, 1)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(101))


@pytest.mark.parametrize("dp_size", [1, 2, 3, 4, 6, 12])
def test_batch_samples_any_world_size_makes_the_same_global_batch(dp_size: int) -> None:
    def batch(step: int) -> list[int]:
        ranks = (
            batch_samples(step * 12, global_batch_size=12, dp_rank=rank, dp_size=dp_size)
            for rank in range(dp_size)
        )
        return [position for positions in ranks for position in positions]

    assert [batch(step) for step in range(3)] == [
        list(range(step * 12, step * 12 + 12)) for step in range(3)
    ]


def test_batch_samples_uneven_batch_raises() -> None:
    with pytest.raises(ValueError, match="12 does not divide by 5"):
        batch_samples(0, global_batch_size=12, dp_rank=0, dp_size=5)


def test_dataset_one_epoch_reads_every_token(tmp_path: Path) -> None:
    index = write_index(tmp_path, 23, 1, 40)
    dataset = PackedDataset(tmp_path, index, sequence_length=7, seed=4)
    samples = [dataset.sample(position) for position in range(9)]
    assert {sample.shape for sample in samples} == {(8,)}
    in_order = np.stack(sorted(samples, key=lambda sample: sample[0]))
    np.testing.assert_array_equal(in_order[:, :-1].ravel(), np.arange(63))
    np.testing.assert_array_equal(in_order[:, 1:].ravel(), np.arange(1, 64))


def test_dataset_resumed_gives_the_same_samples(tmp_path: Path) -> None:
    index = write_index(tmp_path, 300)
    whole = PackedDataset(tmp_path, index, sequence_length=7, seed=4)
    resumed = PackedDataset(tmp_path, index, sequence_length=7, seed=4)
    for position in range(60, 120):  # over the end of an epoch
        np.testing.assert_array_equal(whole.sample(position), resumed.sample(position))


def test_dataset_four_byte_tokens_keep_large_ids(tmp_path: Path) -> None:
    index = write_index(tmp_path, 70_000, width=4)
    tokens = PackedTokens(tmp_path, index.train, token_bytes=4)
    assert tokens.read(69_998, 2).tolist() == [69_998, 69_999]


def test_dataset_shorter_than_one_sample_raises_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only 32 tokens; one sample takes 33") as caught:
        PackedDataset(tmp_path, write_index(tmp_path, 32), sequence_length=32, seed=0)
    assert (caught.value.field, caught.value.value) == ("spec.training.sequenceLength", 32)


@pytest.mark.parametrize(("start", "count"), [(-1, 2), (9, 2), (11, 1)])
def test_tokens_read_outside_raises_index_error(start: int, count: int, tmp_path: Path) -> None:
    index = write_index(tmp_path, 4, 6)
    with pytest.raises(IndexError, match="of 10"):
        PackedTokens(tmp_path, index.train, token_bytes=2).read(start, count)
