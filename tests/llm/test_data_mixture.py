"""The mix of sources: exact in every block, the same whoever asks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pretrain_llm.data.index import Shard, ShardIndex
from pretrain_llm.data.mixture import BLOCK, Mixture, slots
from pretrain_llm.data.packed import PackedDataset
from pretrain_llm.errors import InputError

FIRST = {"web": 0, "code": 10_000}  # token ids tell the source


def write_sources(folder: Path, *, web: int, code: int) -> ShardIndex:
    shards = []
    for name, size in (("web", web), ("code", code)):
        (folder / "train" / name).mkdir(parents=True)
        path = f"train/{name}/0.bin"
        (FIRST[name] + np.arange(size)).astype("<u2").tofile(folder / path)
        shards.append(Shard(path, size, name))
    return ShardIndex(2, 50_000, 0, "f" * 64, tuple(shards), (), 0)


@pytest.mark.parametrize(
    "weights", [[1], [1, 1, 1], [0.45, 0.17, 0.12, 0.12, 0.09, 0.05], [1e9, 1e-9], [2, 3]]
)
def test_slots_sum_to_a_block_and_follow_the_weights(weights: list[float]) -> None:
    shares = slots(weights)
    assert sum(shares) == BLOCK
    assert min(shares) >= 1
    for share, weight in zip(shares, weights, strict=True):
        assert share / BLOCK == pytest.approx(weight / sum(weights), abs=len(weights) / BLOCK)


def test_mixture_block_takes_each_sources_samples_once_in_an_order_of_its_own() -> None:
    mixture = Mixture([3, 1], seed=1)
    first, second = ([mixture.place(p) for p in range(b * BLOCK, (b + 1) * BLOCK)] for b in (0, 1))
    assert Counter(source for source, _ in first) == {0: BLOCK * 3 // 4, 1: BLOCK // 4}
    seen = sorted(number for source, number in first + second if source == 1)
    assert seen == list(range(BLOCK // 2))
    assert [source for source, _ in first] != [source for source, _ in second]


def test_mixture_start_holds_the_mix_already() -> None:
    head = Counter(Mixture([0.55, 0.45], seed=2).place(p)[0] for p in range(2000))
    assert head[0] / 2000 == pytest.approx(0.55, abs=5 * (0.55 * 0.45 / 2000) ** 0.5)


def test_packed_dataset_weighted_reads_each_sources_epochs(tmp_path: Path) -> None:
    index = write_sources(tmp_path, web=8001, code=401)  # 1,000 and 50 samples
    weights = {"web": 1, "code": 1}
    dataset = PackedDataset(tmp_path, index, sequence_length=8, seed=3, weights=weights)
    starts = [int(dataset.sample(position)[0]) for position in range(400)]
    code = Counter(start for start in starts if start >= FIRST["code"])
    assert 150 < code.total() < 250  # half, though it is a twentieth of the text
    assert set(code) == {FIRST["code"] + 8 * n for n in range(50)}  # all of it, again and again
    assert max(code.values()) - min(code.values()) <= 9  # a few epochs of one block's order


def test_packed_dataset_source_shorter_than_a_sample_is_named(tmp_path: Path) -> None:
    index = write_sources(tmp_path, web=100, code=8)
    with pytest.raises(InputError, match="of code has only 8 tokens"):
        PackedDataset(tmp_path, index, sequence_length=8, seed=0, weights={"web": 1, "code": 1})
