"""Segments of a run, and what it has consumed at a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pretrain_llm.contract import config, curriculum
from pretrain_llm.contract.config import ScheduleConfig, SegmentConfig, WeightConfig
from pretrain_llm.contract.curriculum import Consumed
from pretrain_llm.contract.data_order import DataOrder
from pretrain_llm.contract.data_steps import SkippedData

BASE = config.RunConfig(
    run="r",
    volume="/v",
    model=config.ModelConfig("llama", 64, 2, 4, 2, 128, 256, 1e4, 1e-5, False),
    tokenizer=config.TokenizerConfig(train_vocab_size=256),
    data=config.DataConfig(
        tuple(
            config.SourceConfig(name, name, "text", "text", weight)
            for name, weight in (("web", 3.0), ("code", 1.0), ("maths", 0.0))
        ),
        0.1,
    ),
    training=config.TrainingConfig(
        sequence_length=32,
        global_batch_size=8,
        local_batch_size=4,
        steps=100,
        optimizer=config.OptimizerConfig(
            "Muon", 0.02, 0.1, 0.9, 0.95, 1e-8, adamw_learning_rate=0.004
        ),
        schedule=ScheduleConfig(2, "linear", 0.5, 0.1),
        gradient_clip_norm=1.0,
        precision="float32",
        activation_checkpointing="none",
        compile=False,
        seed=1,
    ),
    nodes=config.NodesConfig(1, 0, 1, "cpu"),
    parallelism=config.ParallelismConfig(1, 1, 1, 1),
    checkpoint=config.CheckpointConfig(10, 2),
    export=config.ExportConfig("float32"),
)
ANNEALING = ScheduleConfig(0, "linear", 1.0, 0.0)
SEGMENTS = (
    SegmentConfig(60, weights=(WeightConfig("web", 1.0), WeightConfig("maths", 1.0))),
    SegmentConfig(70, global_batch_size=4, learning_rate=0.01),
    SegmentConfig(80, sequence_length=64, local_batch_size=2, rope_theta=5e5),
    SegmentConfig(90, schedule=ANNEALING),
)


def run(*segments: SegmentConfig) -> config.RunConfig:
    return replace(BASE, training=replace(BASE.training, curriculum=segments))


def test_run_without_a_curriculum_is_one_segment() -> None:
    (only,) = curriculum.segments(BASE)
    assert only.run == BASE
    assert (only.start, only.end, only.schedule_start, only.schedule_end) == (0, 100, 0, 100)
    assert only.consumed(100) == Consumed(800, 25600)
    assert curriculum.boundaries(BASE) == ()


def test_segment_leaves_what_it_does_not_name_as_it_was() -> None:
    found = [segment.run for segment in curriculum.segments(run(*SEGMENTS))]
    assert [each.training.sequence_length for each in found] == [32, 32, 32, 64, 64]
    assert [each.training.global_batch_size for each in found] == [8, 8, 4, 4, 4]
    assert [each.training.local_batch_size for each in found] == [4, 4, 4, 2, 2]
    assert [each.model.rope_theta for each in found] == [1e4, 1e4, 1e4, 5e5, 5e5]
    assert [each.training.schedule for each in found[3:]] == [BASE.training.schedule, ANNEALING]
    assert [each.data.weights for each in found[:2]] == [
        {"web": 3.0, "code": 1.0},
        {"web": 1.0, "maths": 1.0},
    ]
    assert all(each.data.weights == found[1].data.weights for each in found[2:])


def test_segment_changes_all_rates_in_proportion() -> None:
    optimizer = curriculum.segments(run(*SEGMENTS))[2].run.training.optimizer
    assert (optimizer.learning_rate, optimizer.adamw_learning_rate) == (0.01, 0.002)


def test_segment_with_a_rate_alone_has_the_form_of_the_schedule_but_not_its_length() -> None:
    long = replace(BASE.training.schedule, steps=400)
    whole = run(SegmentConfig(60, learning_rate=0.01), SegmentConfig(80, global_batch_size=4))
    whole = replace(whole, training=replace(whole.training, schedule=long))
    found = [segment.run.training.schedule for segment in curriculum.segments(whole)]
    assert found == [long, BASE.training.schedule, BASE.training.schedule]


def test_schedule_lasts_until_the_next_one_begins() -> None:
    found = curriculum.segments(run(*SEGMENTS))
    spans = [(segment.schedule_start, segment.schedule_end) for segment in found]
    assert spans == [(0, 70), (0, 70), (70, 90), (70, 90), (90, 100)]


def test_data_order_goes_on_until_weights_or_length_change() -> None:
    found = curriculum.segments(run(*SEGMENTS))
    assert [segment.order for segment in found] == [0, 1, 1, 2, 2]
    order = DataOrder(found, SkippedData())
    assert [order.first_sample(segment, segment.start) for segment in found] == [0, 0, 80, 0, 40]
    assert order.first_sample(found[2], 71) == 84


def test_segment_with_a_seed_begins_an_order_of_its_own() -> None:
    first, second = found = curriculum.segments(run(SegmentConfig(60, seed=7)))
    assert (first.run.training.seed, second.run.training.seed) == (1, 7)
    assert (second.order, DataOrder(found, SkippedData()).first_sample(second, 60)) == (1, 0)


def test_segment_with_a_new_optimizer_forgets_at_its_boundary_alone() -> None:
    begun = SegmentConfig(60, reset_optimizer=True)
    first, second, third = curriculum.segments(run(begun, SegmentConfig(80, learning_rate=0.01)))
    assert [second.forgets_at(step) for step in (59, 60, 61)] == [False, True, False]
    assert not any(each.forgets_at(each.start) for each in (first, third))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, Consumed(0, 0)),
        (60, Consumed(480, 480 * 32)),
        (75, Consumed(580, 580 * 32)),
        (80, Consumed(600, 600 * 32)),
        (100, Consumed(680, 600 * 32 + 80 * 64)),
    ],
)
def test_consumed_is_the_sum_over_segments(step: int, expected: Consumed) -> None:
    whole = run(*SEGMENTS)
    assert curriculum.segment_of(whole, step).consumed(step) == expected
    assert curriculum.segment_of(whole, step + 1).consumed(step) == expected


def test_total_tokens_are_those_at_the_last_step() -> None:
    assert curriculum.total_tokens(run(*SEGMENTS)) == 600 * 32 + 80 * 64


@pytest.mark.parametrize(
    ("step", "number"), [(0, 0), (1, 0), (60, 0), (61, 1), (90, 3), (91, 4), (100, 4), (101, 4)]
)
def test_segment_of_a_step(step: int, number: int) -> None:
    assert curriculum.segment_of(run(*SEGMENTS), step).number == number


def test_segment_has_the_steps_after_its_start_and_the_last_all_others() -> None:
    first, second = curriculum.segments(run(SEGMENTS[0]))
    assert [first.has_next(step) for step in (0, 59, 60)] == [True, True, False]
    assert [second.has_next(step) for step in (59, 60, 100, 120)] == [False, True, True, True]


def test_boundaries_are_the_ends_but_the_last() -> None:
    assert curriculum.boundaries(run(*SEGMENTS)) == (60, 70, 80, 90)


def test_curriculum_survives_the_codec() -> None:
    from pretrain_llm.contract import codec

    whole: Any = run(*SEGMENTS)
    assert codec.from_json(config.RunConfig, codec.to_json(whole)) == whole
