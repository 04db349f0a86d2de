"""Which samples each step trains, under a curriculum and after rollbacks."""

from __future__ import annotations

import random

import pytest

from pretrain_llm.contract import curriculum
from pretrain_llm.contract.config import SegmentConfig
from pretrain_llm.contract.curriculum import Segment
from pretrain_llm.contract.data_order import DataOrder
from pretrain_llm.contract.data_steps import SkippedData
from pretrain_llm.coordinator.rollbacks import LossPolicy, rollback

from .test_curriculum import run

Samples = set[tuple[int, int]]  # (order, number)

LARGER = SegmentConfig(60, global_batch_size=16)
SMALLER = SegmentConfig(60, global_batch_size=4)
NEW_ORDER = SegmentConfig(60, seed=7)


def trained(segments: tuple[Segment, ...], skipped: SkippedData, step: int) -> Samples:
    """By the step after so many finished ones."""
    (segment,) = (each for each in segments if each.start <= step < each.end)
    first = DataOrder(segments, skipped).first_sample(segment, step)
    size = segment.run.training.global_batch_size
    return {(segment.order, number) for number in range(first, first + size)}


def undone(skipped: SkippedData, first: int, last: int) -> SkippedData:
    """As the coordinator decides, where a checkpoint of `first` finished steps is the newest."""
    policy = LossPolicy(max_rollbacks=len(skipped.ranges) + 1)
    found = rollback(policy, skipped, [first], onset=first + 1, seen_at=last + 1).skipped
    assert found
    return skipped.with_rollback(found)


@pytest.mark.parametrize(
    ("segments", "steps", "step", "expected"),
    [
        pytest.param((), (20, 21), 20, 22 * 8, id="no curriculum"),
        pytest.param((LARGER,), (20, 21), 60, 62 * 8, id="larger batches, after"),
        pytest.param((SMALLER,), (20, 21), 60, 62 * 8, id="smaller batches, after"),
        pytest.param((NEW_ORDER,), (20, 21), 60, 0, id="an order of its own, after"),
        pytest.param((LARGER,), (58, 61), 58, 60 * 8 + 2 * 16, id="across, before the border"),
        pytest.param((LARGER,), (58, 61), 60, 62 * 8 + 2 * 16, id="across, behind it"),
        pytest.param((NEW_ORDER,), (58, 61), 58, 60 * 8, id="across orders, before"),
        pytest.param((NEW_ORDER,), (58, 61), 60, 2 * 8, id="across orders, behind"),
    ],
)
def test_steps_take_what_comes_after_the_samples_that_are_skipped(
    segments: tuple[SegmentConfig, ...], steps: tuple[int, int], step: int, expected: int
) -> None:
    found = curriculum.segments(run(*segments))
    samples = trained(found, undone(SkippedData(), *steps), step)
    assert min(number for _, number in samples) == expected


@pytest.mark.parametrize("seed", range(60))
def test_no_sample_is_trained_twice_or_again_and_none_is_lost(seed: int) -> None:
    chance = random.Random(seed)
    segments = curriculum.segments(run(*_some_segments(chance)))
    steps, skipped, bad = segments[-1].end, SkippedData(), set()
    for _ in range(chance.randint(1, 4)):
        before = [trained(segments, skipped, step) for step in range(steps)]
        first, last = sorted(chance.sample(range(steps), 2))
        bad |= set().union(*before[first : last + 1])
        skipped = undone(skipped, first, last)
        after = [trained(segments, skipped, step) for step in range(steps)]
        assert after[:first] == before[:first]
        assert sum(map(len, after)) == len(set().union(*after))
        assert not bad & set().union(*after)
    sizes = {segment.run.training.global_batch_size for segment in segments}
    most = 0 if len(sizes) == 1 else len(segments) * len(skipped.ranges) * (max(sizes) - 1)
    assert len(_lost(set().union(*after), bad)) <= most


def _some_segments(chance: random.Random) -> list[SegmentConfig]:
    """Of the run's 100 steps."""
    starts = sorted(chance.sample(range(1, 100), chance.randint(0, 3)))
    return [
        SegmentConfig(
            start,
            global_batch_size=chance.choice((None, 4, 8, 16)),
            seed=chance.choice((None, None, start)),
        )
        for start in starts
    ]


def _lost(used: Samples, bad: Samples) -> Samples:
    """Neither trained nor skipped, though later ones of their order are: where batches change their
    size, less than one before each stretch that is skipped."""
    last = dict(sorted(used))
    passed = {(order, number) for order, end in last.items() for number in range(end)}
    return passed - used - bad
