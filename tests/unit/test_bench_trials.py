"""Which trials a bench has, in which order, and that what was measured is not measured again."""

from __future__ import annotations

from pathlib import Path

from hack.bench import record, trials
from hack.bench.measure import Phases
from hack.bench.record import Outcome
from hack.bench.trials import (
    ELASTIC,
    HANG,
    KILL,
    OURS,
    POWER_OFF,
    POWER_OFF_NO_SPARE,
    POWER_OFF_PATIENT,
    RECREATE,
    Trial,
)

PHASES = Phases(0.1, 0.2, 0.3, 0.4, 0.5, steps_replayed=2)


def test_each_repetition_goes_through_all_systems() -> None:
    found = trials.turns(trials.wanted([KILL, HANG], [OURS, ELASTIC], 2), done=())
    assert [(turn.system, len(turn.trials)) for turn in found] == [(OURS, 2), (ELASTIC, 2)] * 2
    assert {trial.repetition for trial in found[0].trials} == {0}


def test_losing_a_node_without_a_spare_is_a_turn_of_its_own_for_ours_and_no_other_for_peers() -> (
    None
):
    wanted = trials.wanted([POWER_OFF, POWER_OFF_NO_SPARE], [OURS, RECREATE], 1)
    found = trials.turns(wanted, done=())
    assert [(turn.system, turn.setup.spares, [t.fault for t in turn.trials]) for turn in found] == [
        (OURS, 1, [POWER_OFF]),
        (OURS, 0, [POWER_OFF_NO_SPARE]),
        (RECREATE, 0, [POWER_OFF]),
    ]


def test_peer_is_measured_also_where_only_the_loss_without_a_spare_is_wanted() -> None:
    assert trials.wanted([POWER_OFF_NO_SPARE], [RECREATE], 1) == (
        Trial(POWER_OFF_NO_SPARE, RECREATE, 0),
    )


def test_patience_is_a_turn_of_its_own_only_for_whole_job_recreate() -> None:
    wanted = trials.wanted([POWER_OFF, POWER_OFF_PATIENT], trials.SYSTEMS, 1)
    found = trials.turns(wanted, done=())
    assert [(turn.system, turn.setup.patience_seconds, len(turn.trials)) for turn in found] == [
        (OURS, None, 1),
        (RECREATE, None, 1),
        (RECREATE, 600, 1),
        (ELASTIC, None, 1),
    ]


def test_measured_trials_are_left_out() -> None:
    wanted = trials.wanted([KILL], [OURS, RECREATE], 1)
    assert [turn.system for turn in trials.turns(wanted, {Trial(KILL, OURS, 0)})] == [RECREATE]


def test_moment_of_a_fault_is_the_same_in_all_systems_and_within_the_interval() -> None:
    moments = {trials.offset_steps(Trial(KILL, name, 3), 5) for name in trials.SYSTEMS}
    assert len(moments) == 1
    losses = (POWER_OFF, POWER_OFF_NO_SPARE, POWER_OFF_PATIENT)
    assert len({trials.offset_steps(Trial(fault, OURS, 3), 5) for fault in losses}) == 1
    repetitions = [trials.offset_steps(Trial(KILL, OURS, number), 5) for number in range(50)]
    assert 0 <= min(repetitions) < 1 < 4 < max(repetitions) < 5


def test_record_survives_a_write_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    assert record.read(path) == []
    measured = Outcome(Trial(KILL, OURS, 0), PHASES, step_seconds=0.3)
    failed = Outcome(Trial(HANG, RECREATE, 1), failure="no new step")
    record.append(path, measured)
    record.append(path, failed)
    with path.open("a") as file:
        file.write(record.to_line(measured)[:20])
    assert record.read(path) == [measured, failed]
