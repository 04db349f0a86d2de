"""From containers' log lines to the phases of a recovery."""

from __future__ import annotations

import pytest

from hack.bench import measure
from hack.bench.measure import DETECTED, RESTORED, ROUND, STEP, Event, Phases

STEP_LINE = "2026-11-21 12:00:00,123 [rank 0] INFO step:  7  loss:  7.60000  grad_norm:  1.2000"


@pytest.mark.parametrize(
    ("text", "kind", "step"),
    [
        (STEP_LINE, STEP, 7),
        ("x INFO Training starts at step 6", RESTORED, 6),
        ("I1121 api.py:552] [default] Rendezvous complete for workers. Result:", ROUND, None),
        ("[default] Worker group FAILED. 3/4 attempts left; will restart worker group", DETECTED,
         None),
        ("W1121 Received 15 death signal, shutting down workers", DETECTED, None),
        ("pretrain_llm.coordinator.server round 3 is broken", DETECTED, None),
    ],
)  # fmt: skip
def test_line_of_a_container_is_an_event(text: str, kind: str, step: int | None) -> None:
    found = measure.event(f"2026-11-21T12:00:00.123456789Z stderr F {text}", "pod-1")
    assert found == Event(1795262400.123456, "pod-1", kind, step)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not a line of containerd",
        "2026-11-21T12:00:00.1Z stdout F Trainer is initialized",
        "2026-11-21T12:00:00.1Z stdout F validate step:  7  loss:  7.6",
    ],
)
def test_any_other_line_is_none(line: str) -> None:
    assert measure.event(line, "pod-1") is None


def test_times_with_an_offset_and_without_a_fraction_are_read() -> None:
    line = f"2026-11-21T13:00:00+01:00 stdout F {STEP_LINE}"
    found = measure.event(line, "pod")
    assert found
    assert found.time == 1795262400


def steps(*rows: tuple[float, int]) -> list[Event]:
    return [Event(time, "worker", STEP, step) for time, step in rows]


BEFORE = [Event(0.0, "worker", ROUND), Event(1.0, "worker", RESTORED, 1),
          *steps((2.0, 1), (3.0, 2), (4.0, 3))]  # fmt: skip
RECOVERY = [
    Event(10.5, "agent", DETECTED),
    Event(11.0, "agent-0", ROUND),
    Event(11.5, "agent-1", ROUND),
    Event(13.0, "worker", RESTORED, 3),
]


def test_phases_add_up_to_the_first_step_never_done_before() -> None:
    found = measure.phases([*BEFORE, *RECOVERY, *steps((14.0, 3), (14.5, 4), (15.0, 5))], 10.0)
    assert found == Phases(0.5, 1.0, 1.5, 1.0, 0.5, steps_replayed=1)
    assert found.to_first_step_seconds == 4.0
    assert found.total_seconds == 4.5


def test_step_done_after_the_fault_and_before_the_recovery_is_not_new() -> None:
    late = steps((10.2, 4))
    found = measure.phases([*BEFORE, *late, *RECOVERY, *steps((14.0, 3), (15.0, 4), (16.0, 5))], 10)
    assert found
    assert (found.total_seconds, found.steps_replayed) == (6.0, 2)


def test_nothing_is_measured_before_the_new_step() -> None:
    assert measure.phases([*BEFORE, *RECOVERY, *steps((14.0, 3))], 10.0) is None
    assert measure.phases(BEFORE, 10.0) is None


def test_of_two_rounds_the_one_that_brought_steps_back_counts() -> None:
    failed = [Event(11.0, "a", ROUND), Event(11.5, "w", RESTORED, 3), Event(12.0, "a", DETECTED)]
    second = [Event(14.0, "a", ROUND), Event(16.0, "w", RESTORED, 4)]
    found = measure.phases(
        [*BEFORE, Event(10.5, "a", DETECTED), *failed, *second, *steps((17.0, 4))], 10.0
    )
    assert found == Phases(0.5, 3.5, 2.0, 1.0, 0.0, steps_replayed=0)


def test_fault_that_nobody_told_of_counts_as_detected_when_the_round_is_there() -> None:
    unseen = [event for event in RECOVERY if event.kind != DETECTED]
    found = measure.phases([*BEFORE, *unseen, *steps((14.0, 4))], 10.0)
    assert found == Phases(1.5, 0.0, 1.5, 1.0, 0.0, steps_replayed=0)


def test_events_in_any_order_give_the_same() -> None:
    events = [*BEFORE, *RECOVERY, *steps((14.0, 3), (14.5, 4))]
    assert measure.phases(events[::-1], 10.0) == measure.phases(events, 10.0)


def test_steps_since_start_forget_what_was_before_the_last_start() -> None:
    events = [*BEFORE, *RECOVERY, *steps((14.0, 3))]
    assert [event.step for event in measure.steps_since_start(events)] == [3]
