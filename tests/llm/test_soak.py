"""The short form of `make soak`, and the rules by which it judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_llm.contract import status
from pretrain_llm.contract.reports import FaultReport
from pretrain_llm.contract.status import Incident

from . import small_worker, worlds
from .soak import outcome, schedule, world
from .soak.outcome import Line, Outcome, comparison
from .soak.schedule import INTERVAL, KINDS, Strike

SAMPLES = 4  # of two steps


@pytest.mark.usefixtures("warm_workers")
def test_run_under_seeded_faults_ends_as_the_run_without_to_the_last_bit(tmp_path: Path) -> None:
    steps = 120  # a strike takes a moment to come: none is planned for the last ones
    strikes = schedule.schedule(2, 70, 3, ("worker-sigkill", "checkpoint-bit-flipped", "node-lost"))
    run = world.soak_run(tmp_path / "struck", steps, in_memory=False)
    struck = world.outcome(run, strikes)
    found = comparison(plain(tmp_path, steps), struck, steps * run.training.global_batch_size)

    told = outcome.entry(2, False, strikes, struck, found)
    print(outcome.table(told))
    assert found.differences == ()
    assert found.max_loss_difference == 0
    assert told["replayedSteps"] > 0
    assert {"WorkerKilled", "AgentLost"} <= {incident["class"] for incident in told["incidents"]}
    assert told["finalLoss"] < 0.9 * struck.losses[1]


def plain(folder: Path, steps: int) -> Outcome:
    """Of the same run, trained without agents and faults."""
    run = world.soak_run(folder / "plain", steps, in_memory=False)
    records = {small_worker.FOLDER: str(folder)}
    with worlds.world(run, schedule.NODES, world.WORKER, records) as workers:
        workers.finish()
    return Outcome(world.recorded(folder))


def line(step: int, *samples: int, round: int = 1, rank: int = 0, loss: float = 1.0) -> Line:
    return Line(rank, round, step, loss, samples)


PLAIN = Outcome((line(1, 0), line(1, 1, rank=1), line(2, 2), line(2, 3, rank=1)))


@pytest.mark.parametrize(
    ("lines", "differences", "max_loss_difference"),
    [
        pytest.param(PLAIN.lines, (), 0.0, id="nothing"),
        pytest.param(
            (*PLAIN.lines, line(2, 2, round=2), line(2, 3, rank=1, round=2)),
            (),
            0.0,
            id="a step run again counts once",
        ),
        pytest.param(
            (line(2, 9, loss=1.5, round=0), *PLAIN.lines),
            ("the losses of 1 steps differ, first of step 2",),
            0.5,
            id="also where the step was run again, right",
        ),
        pytest.param(
            (*PLAIN.lines, line(2, 1, round=2)),
            (
                "1 samples were not used, first sample 2",
                "1 samples were used too often, first sample 1",
            ),
            0.0,
            id="a sample instead of another",
        ),
        pytest.param(
            PLAIN.lines[:2],
            ("1 steps are missing, first step 2", "2 samples were not used, first sample 2"),
            0.0,
            id="the end",
        ),
    ],
)
def test_comparison_says_what_differs(
    lines: tuple[Line, ...], differences: tuple[str, ...], max_loss_difference: float
) -> None:
    found = comparison(PLAIN, Outcome(lines), SAMPLES)
    assert found.differences == differences
    assert found.max_loss_difference == max_loss_difference


def test_lines_of_no_step_are_no_run_like_the_plain_one() -> None:
    assert comparison(PLAIN, Outcome(()), SAMPLES).differences


def test_incident_of_nobody_has_a_class_too() -> None:
    assert outcome.fault_class(Incident(1, 0.0, status.STALLED), ()) == "Hang"


def test_schedule_is_its_seeds_and_spares_the_steps_without_a_checkpoint() -> None:
    assert schedule.schedule(1, 600, 12) == schedule.schedule(1, 600, 12)
    assert schedule.schedule(1, 600, 12) != schedule.schedule(2, 600, 12)
    for seed in range(20):
        steps = [strike.step for strike in schedule.schedule(seed, 100, 12)]
        assert steps == sorted(steps)
        assert all(2 * INTERVAL <= step < 100 - INTERVAL for step in steps)


def test_schedule_has_every_kind_before_any_comes_twice() -> None:
    strikes = [s for s in schedule.schedule(1, 600, len(KINDS)) if s.after_seconds is None]
    assert {strike.kind for strike in strikes} == set(KINDS)


def test_schedule_without_room_for_its_faults_says_so() -> None:
    with pytest.raises(ValueError, match="12 faults need more than 40 steps"):
        schedule.schedule(1, 40, 12)


def test_table_has_faults_incidents_and_verdict() -> None:
    killed = Incident(
        1,
        0.0,
        status.WORKER_EXIT,
        agent="pod-1",
        first_fault=FaultReport(1, 1, 0.0, signal=9),
        last_step=27,
        resumed_step=20,
    )
    struck = Outcome(PLAIN.lines, (killed,))
    strikes = (Strike(25, "worker-sigkill", 1), Strike(25, "coordinator-killed", 0, 1.5))
    told = outcome.entry(7, True, strikes, struck, comparison(PLAIN, struck, SAMPLES))
    text = outcome.table(told)
    assert "    25  worker-sigkill, node 1\n+1.5 s  coordinator-killed, node 0\n" in text
    assert "     1  WorkerKilled           27       20     7" in text
    assert "1 incidents, 7 steps lost, 0 run again, 4 samples used" in text
    assert text.endswith("as the run that nothing struck")
