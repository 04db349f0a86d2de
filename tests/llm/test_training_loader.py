"""The loader reads ahead, and says only what was handed out."""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pretrain_llm.contract.curriculum import segments

from .runs import run_config, write_data

pytestmark = pytest.mark.usefixtures("warm_workers")


def loader(volume: Path) -> Any:
    """Of one rank that takes the 8 sequences of a step in two local batches."""
    from pretrain_llm.training.loader import PackedLoader

    run = run_config(volume)
    index = write_data(run.layout)
    everyone = segments(run)
    config = PackedLoader.Config(
        folder=str(run.layout.data), index=index, segments=everyone, segment=everyone[0]
    )
    return config.build(dp_world_size=1, dp_rank=0, seq_len=32, local_batch_size=4, tokenizer=None)


def test_state_after_a_batch_is_of_the_steps_handed_out(volume: Path) -> None:
    ours = loader(volume)
    batches = iter(ours)
    assert ours.state_dict()["steps"] == 0
    for expected in (1, 1, 2, 2, 3):
        next(batches)
        assert ours.state_dict()["steps"] == expected
    assert ours.state_dict()["samples"] == 24


def test_loader_that_goes_on_hands_out_what_the_first_would_have(volume: Path) -> None:
    whole = [labels.tolist() for _, labels in islice(loader(volume), 8)]
    first, resumed = loader(volume), loader(volume)
    list(islice(first, 4))
    resumed.load_state_dict(first.state_dict())
    assert [labels.tolist() for _, labels in islice(resumed, 4)] == whole[4:]


def test_batches_of_the_next_step_are_read_while_one_trains(volume: Path) -> None:
    ours, read, forwards, forwards_at = loader(volume), threading.Semaphore(0), [0], []
    original = ours._batch

    def batch(positions: range) -> Any:
        forwards_at.append(forwards[0])
        result = original(positions)
        read.release()
        return result

    ours._batch = batch
    batches = iter(ours)
    next(batches)  # of two
    assert all(read.acquire(timeout=30) for _ in range(2))
    next(batches)
    forwards[0] = 1
    ours.read_on()
    assert all(read.acquire(timeout=30) for _ in range(2))
    assert forwards_at == [0, 0, 1, 1]


def test_error_of_reading_is_raised_where_the_batch_is_due(volume: Path) -> None:
    ours = loader(volume)

    def batch(positions: range) -> Any:
        raise IndexError(f"no tokens at {positions}")

    ours._batch = batch
    with pytest.raises(IndexError, match="no tokens"):
        next(iter(ours))
