"""A slow rank is told from those that wait for it, by the time that each computes by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_llm.coordinator import stragglers
from pretrain_llm.coordinator.stragglers import OwnTimes, StragglerPolicy
from pretrain_llm.training.own_time import REPORTED_STEPS

from . import poisoned_worker
from .runs import mesh, run_config, write_data
from .worlds import world

STEPS = 2 * REPORTED_STEPS
POLICY = StragglerPolicy(window_steps=STEPS)


@pytest.mark.usefixtures("warm_workers")
def test_training_slow_rank_is_named_though_both_finish_each_step_together(volume: Path) -> None:
    run = run_config(volume, parallelism=mesh(shard=2), training={"steps": STEPS})
    write_data(run.layout, tokens=20_000)
    slow = {poisoned_worker.SLOW: json.dumps({"1": 0.05})}
    with world(run, 2, "tests.llm.poisoned_worker:main", slow) as workers:
        workers.finish()
    told = [report for report in workers.reports if report.own_time]

    assert sorted((report.rank, report.own_time.step) for report in told if report.own_time) == [
        (0, REPORTED_STEPS),
        (0, STEPS),
        (1, REPORTED_STEPS),
        (1, STEPS),
    ]
    times = OwnTimes()
    for report in told:
        assert report.own_time
        times = stragglers.timed(times, POLICY, report, f"pod-{report.rank}", report.own_time)
    (named,) = stragglers.stragglers(times, POLICY, {"pod-1": "node-1"})
    assert (named.rank, named.agent, named.node) == (1, "pod-1", "node-1")
    assert named.own_seconds > named.median_seconds + 0.02
