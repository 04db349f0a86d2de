"""Slow ranks by score, window and round; what the coordinator says of them."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import protocol
from pretrain_llm.contract.protocol import AgentEvent
from pretrain_llm.contract.reports import OwnTimeReport, WorkerReport
from pretrain_llm.contract.status import Straggler
from pretrain_llm.coordinator import metrics, stragglers
from pretrain_llm.coordinator.stragglers import OwnTimes, StragglerPolicy

from .test_coordinator_incidents import T0, Run

POLICY = StragglerPolicy(z_score=4.0, window_steps=30)


def own_time(rank: int, step: int, seconds: float, round_number: int = 1) -> WorkerReport:
    return WorkerReport(rank, round_number, own_time=OwnTimeReport(step, seconds, T0))


def told(*reports: WorkerReport) -> OwnTimes:
    times = OwnTimes()
    for report in reports:
        assert report.own_time
        times = stragglers.timed(times, POLICY, report, f"pod-{report.rank}", report.own_time)
    return times


def named(times: OwnTimes) -> list[int]:
    return [slow.rank for slow in stragglers.stragglers(times, POLICY, {})]


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        pytest.param([1.0, 1.0, 1.0, 1.3], [3], id="one of four"),
        pytest.param([1.0, 1.3], [1], id="one of two"),
        pytest.param([1.0, 1.19], [], id="less than four times 5 %"),
        pytest.param([1.0, 1.0, 1.0, 1.0, 1.3, 1.5], [5, 4], id="the slowest first"),
        pytest.param([1.0, 1.2, 0.8, 1.1, 0.9, 1.4], [], id="as uneven as all"),
        pytest.param([1.0, 0.5, 1.0], [], id="a fast one"),
        pytest.param([1.0], [], id="nobody to compare with"),
        pytest.param([0.0, 0.0], [], id="no time at all"),
    ],
)
def test_rank_is_slow_by_its_score_among_the_others(seconds, slow):
    reports = (
        own_time(rank, step, value) for step in (10, 20, 30) for rank, value in enumerate(seconds)
    )
    assert named(told(*reports)) == slow


def test_nobody_is_named_before_every_window_is_full():
    reports = [own_time(rank, step, 1.0 + rank) for step in (10, 20) for rank in (0, 1)]
    assert named(told(*reports, own_time(1, 30, 2.0))) == []
    assert named(told(*reports, own_time(1, 30, 2.0), own_time(0, 30, 1.0))) == [1]


def test_window_moves_on_and_a_short_delay_passes():
    slow = [own_time(1, step, 9.0 if step == 20 else 1.0) for step in (10, 20, 30)]
    even = [own_time(0, step, 1.0) for step in (10, 20, 30)]
    assert named(told(*slow, *even)) == []
    long_ago = [own_time(1, step, 9.0 if step < 30 else 1.0) for step in range(10, 70, 10)]
    assert named(told(*long_ago, *even)) == []


def test_new_round_begins_anew_and_late_reports_of_the_old_count_no_more():
    times = told(*(own_time(rank, step, 1.0 + rank) for step in (10, 20, 30) for rank in (0, 1)))
    new = told(own_time(0, 40, 1.0, 2), own_time(0, 50, 1.0))
    assert named(times) == [1]
    assert (new.round, new.by_rank[0].steps) == (2, (40,))


def test_coordinator_names_the_slow_rank_its_pod_and_node_until_the_round_ends():
    run = Run()
    for number in range(10, 60, 10):
        for rank, name in enumerate("ab"):
            report = own_time(rank, number, 1.0 + rank)
            run.report(name, T0 + 1, AgentEvent(worker=report))
    assert run.status.stragglers == (Straggler(1, "b", "node-b", 20.0, 2.0, 1.0),)
    text = metrics.exposition(lambda: run.status).decode()
    assert 'straggler_zscore{attempt="1",node="node-b",rank="1",run="run"} 20.0' in text
    run.report("a", T0 + 2, state=protocol.WAITING)
    assert run.status.stragglers == ()
