"""The simulation: traces, stretches of training, and runs whose outcome can be told by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain_operator import faults as fault_table
from pretrain_operator.api.spec import RunSpec
from pretrain_operator.cli.commands import main
from pretrain_operator.simulate import Durations, Fault, Result, TraceError, scenarios, simulation
from pretrain_operator.simulate.sensitivity import sensitivity, simulated
from pretrain_operator.simulate.stretch import Position, Stretch
from pretrain_operator.simulate.trace import CLASSES, by_shares, llama3, spaced, trace

DEMO = Path(__file__).parents[2] / "recipes" / "demo.yaml"
SIMPLE = Durations(
    step_seconds=1.0,
    checkpoint_steps=100,
    stall_seconds=0.0,
    save_seconds=0.0,
    start_seconds=10.0,
    exit_detect_seconds=0.5,
    watchdog_seconds=60.0,
    stop_seconds=2.0,
    warm_start_seconds=0.0,
    communicator_seconds=0.0,
    load_seconds=20.0,
    first_step_extra_seconds=5.0,
    replacement_seconds=120.0,
    human_seconds=1000.0,
)
START = 10.0 + 20.0 + 5.0  # until training begins
IN_MEMORY = replace(
    SIMPLE,
    memory_steps=10,
    memory_stall_seconds=0.0,
    memory_copy_seconds=5.0,
    memory_load_seconds=3.0,
    memory_fetch_seconds=4.0,
)


def scout_spec(spares: int = 1, exclude_node_after: int = 3) -> RunSpec:
    spec = scenarios.scout().spec
    recovery = {"exclude_node_after": exclude_node_after}
    return spec.model_copy(
        update={
            "nodes": spec.nodes.model_copy(update={"spares": spares}),
            "recovery": spec.recovery.model_copy(update=recovery),
        },
    )


def run(
    *hits: tuple[float, str],
    durations: Durations = SIMPLE,
    total_steps: int = 500,
    spares: int = 1,
    horizon_seconds: float = 100_000.0,
    exclude_node_after: int = 3,
) -> Result:
    """`hits`: (seconds since training began, class of the fault), all on node 0."""
    return simulation(
        scout_spec(spares, exclude_node_after),
        durations,
        tuple(Fault(START + seconds, name, 0) for seconds, name in hits),
        total_steps=total_steps,
        horizon_seconds=horizon_seconds,
        mtbf_seconds=10_000.0,
    )


# Traces


def test_trace_rows_are_read_in_order_of_time() -> None:
    text = "time_hours,class,node\n2,NodeLost,3\n0.5,SoftwareBug,0\n"
    assert trace(text, nodes=4) == (Fault(1800.0, "SoftwareBug", 0), Fault(7200.0, "NodeLost", 3))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("x,NodeLost,0", "line 2: time_hours 'x': give hours"),
        ("-1,NodeLost,0", "time_hours '-1'"),
        ("nan,NodeLost,0", "time_hours 'nan'"),
        ("inf,NodeLost,0", "time_hours 'inf'"),
        ("1,Gremlins,0", "class 'Gremlins': choose one of FaultyGPU"),
        ("1,NodeLost,4", "node '4': give a number from 0 to 3"),
        ("1,NodeLost,-1", "node '-1'"),
        ("1,NodeLost", "a row has the 3 fields"),
        ("1,NodeLost,0,9", "a row has the 3 fields"),
    ],
)
def test_trace_bad_row_is_named_with_its_line(row: str, words: str) -> None:
    with pytest.raises(TraceError) as caught:
        trace(f"time_hours,class,node\n{row}\n", nodes=4)
    assert words in str(caught.value)


def test_trace_several_bad_rows_are_all_named() -> None:
    with pytest.raises(TraceError, match=r"(?s)line 2: .*line 4: "):
        trace("time_hours,class,node\nx,NodeLost,0\n1,NodeLost,0\n1,NodeLost,9\n", nodes=4)


@pytest.mark.parametrize("text", ["", "time,class,node\n1,NodeLost,0\n"])
def test_trace_wrong_columns_are_refused(text: str) -> None:
    with pytest.raises(TraceError, match="give time_hours, class, node"):
        trace(text, nodes=4)


def test_trace_llama3_has_the_counts_of_the_paper() -> None:
    drawn = llama3(1, 2048, 54 * 86_400.0)
    unexpected = [fault for fault in drawn if fault.effect != "Drain"]
    assert (len(drawn), len(unexpected)) == (466, 419)
    assert drawn == llama3(1, 2048, 54 * 86_400.0)
    assert drawn != llama3(2, 2048, 54 * 86_400.0)


def test_trace_spaced_keeps_the_gaps() -> None:
    times = [fault.seconds for fault in spaced(3, 8, 100_000.0, "NodeLost", (2700.0, 4500.0))]
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert all(2700 <= gap <= 4500 for gap in gaps)
    assert len(times) >= 100_000 / 4500 - 1


def test_trace_by_shares_has_about_the_asked_rate() -> None:
    drawn = by_shares(1, 8, 1_000_000.0, 1000.0)
    assert 900 < len(drawn) < 1100
    assert {fault.name for fault in drawn} <= {n for n, entry in CLASSES.items() if entry.llama3}


# Stretches


@pytest.mark.parametrize(
    ("elapsed", "position"),
    [
        (0.0, Position(50, 50, 0.0)),
        (9.9, Position(59, 50, 0.0)),
        (50.0, Position(100, 50, 0.0)),  # the save of step 100 begins
        (52.0, Position(100, 50, 2.0)),
        (54.0, Position(100, 50, 4.0)),  # the stall is over, the save goes on
        (60.0, Position(106, 100, 4.0)),
        (154.0, Position(200, 100, 4.0)),
        (164.0, Position(206, 200, 8.0)),
    ],
)
def test_stretch_position_counts_steps_saves_and_stalls(elapsed: float, position: Position) -> None:
    assert stretch().position(1000.0 + elapsed) == position


def test_stretch_waits_for_a_save_that_takes_longer_than_its_steps() -> None:
    slow = replace(stretch(), since=0.0, resumed_step=0, interval_steps=10, save_seconds=216.0)
    found = slow.position(1000.0)  # saves begin at 10, 226, 442, 658 and 874 s
    assert (found.step, found.saved_step) == (50, 40)
    assert [slow.position(now).step for now in (873.0, 874.0)] == [49, 50]
    assert slow.position(1089.9).saved_step == 40
    assert slow.position(1090.0).saved_step == 50


def test_stretch_ends_when_its_last_step_does() -> None:
    ends_at = stretch().ends_at(200)
    assert ends_at == 1000.0 + 150 + 4
    assert stretch().position(ends_at).step == 200


@pytest.mark.parametrize(
    ("elapsed", "is_from_memory", "memory_step", "copied_step"),
    [
        (3.0, False, None, None),
        (3.0, True, 55, None),
        (5.0, True, 60, 55),  # step 60 is saved, what it resumed from is copied
        (22.0, False, 70, 70),
        (24.9, False, 70, 70),
        (25.0, False, 80, 70),
    ],
)
def test_stretch_position_counts_saves_in_memory(
    elapsed: float, is_from_memory: bool, memory_step: int | None, copied_step: int | None
) -> None:
    saving = replace(
        stretch(),
        resumed_step=55,
        memory_steps=10,
        memory_copy_seconds=5.0,
        is_from_memory=is_from_memory,
    )
    found = saving.position(1000.0 + elapsed)
    assert (found.memory_step, found.copied_step) == (memory_step, copied_step)


def test_stretch_stall_of_a_save_in_memory_is_spread_over_its_steps() -> None:
    stalling = replace(stretch(), memory_steps=10, memory_stall_seconds=5.0)
    assert stalling.ends_at(200) == 1000.0 + 150 * 1.5 + 4
    found = stalling.position(1000.0 + 30 * 1.5)
    assert (found.step, found.stalled_seconds) == (80, pytest.approx(15.0))


def stretch() -> Stretch:
    return Stretch(1000.0, 50, 50, 1.0, 100, stall_seconds=4.0, save_seconds=10.0)


# Runs


def test_run_without_faults_takes_start_and_steps() -> None:
    result = run()
    assert result.finished
    assert result.wall_seconds == pytest.approx(START + 500)
    assert result.ettr == pytest.approx(500 / 535)
    assert result.incidents == ()


def test_run_killed_worker_costs_its_phases_and_lost_steps() -> None:
    result = run((250.5, "WorkerKilled"))
    assert {k: round(v, 3) for k, v in result.badput_seconds.items() if v} == {
        "Start": 35.0,
        "Detect": 0.5,
        "Reschedule": 2.0,
        "Restore": 20.0,
        "FirstStep": 5.0,
        "LostSteps": 50.5,
    }
    assert result.steps_lost == 50
    (incident,) = result.incidents
    assert (incident.fault_class, incident.level) == ("WorkerError", "WorkerRestart")
    assert (incident.restore_seconds, incident.steps_lost) == (20.0, 50)


def test_run_killed_worker_goes_on_from_memory() -> None:
    result = run((257.5, "WorkerKilled"), durations=IN_MEMORY)
    assert result.badput_seconds["Restore"] == 3.0
    assert result.badput_seconds["LostSteps"] == pytest.approx(7.5)
    assert result.steps_lost == 7
    (incident,) = result.incidents
    assert incident.steps_lost == 7


def test_run_lost_node_goes_on_from_the_copy_that_its_neighbour_has() -> None:
    result = run((253.0, "NodeLost"), durations=IN_MEMORY)
    assert result.badput_seconds["Restore"] == 4.0 + 3.0
    assert result.steps_lost == 13  # of step 250 there is no copy yet


def test_run_two_neighbours_lost_at_once_go_back_to_the_volume() -> None:
    result = run((253.0, "NodeLost"), (253.0, "NodeLost"), durations=IN_MEMORY)
    assert result.badput_seconds["Restore"] == 20.0
    assert result.steps_lost == 53


def test_run_whose_memory_makes_no_step_of_progress_goes_back_to_the_volume() -> None:
    fails_again = replace(IN_MEMORY, health_seconds=12.0, fails_again_seconds=5.0)
    result = run((257.5, "FaultyGPU"), durations=fails_again, exclude_node_after=0)
    assert len(result.incidents) > 1
    assert result.steps_lost == 57


def test_run_saves_in_memory_no_faster_than_they_are_copied() -> None:
    slow = replace(IN_MEMORY, memory_copy_seconds=25.0)
    assert slow.memory_interval_steps == 30
    assert run((257.5, "WorkerKilled"), durations=slow).steps_lost == 17


def test_run_goes_on_from_the_volume_where_that_is_newer_than_memory() -> None:
    slow = replace(IN_MEMORY, memory_copy_seconds=115.0)
    result = run((230.0, "WorkerKilled"), durations=slow)
    assert result.badput_seconds["Restore"] == 20.0
    assert result.steps_lost == 30


def test_run_lost_node_is_noticed_by_its_lease_and_a_spare_takes_over() -> None:
    result = run((250.0, "NodeLost"))
    (incident,) = result.incidents
    assert incident.level == "NodeReplacement"
    assert incident.detect_seconds == pytest.approx(3.25, abs=0.5)  # the coordinator's own lease
    assert incident.reschedule_seconds == pytest.approx(2.0, abs=0.5)


def test_run_lost_node_without_a_spare_waits_for_the_pod_that_the_plan_frees() -> None:
    result = run((250.0, "NodeLost"), spares=0)
    (incident,) = result.incidents
    silent_to_waiting = 50 + 5 + 120  # NotReady, marked, forced off by the plan, replaced
    assert incident.detect_seconds is not None
    assert incident.reschedule_seconds is not None
    together = incident.detect_seconds + incident.reschedule_seconds
    assert together == pytest.approx(silent_to_waiting, abs=1.0)


@pytest.mark.parametrize(
    ("watchdog_seconds", "detected_after", "fault_class"),
    [
        (60.0, 10.0, "Hang"),  # ten times the median step, by the coordinator
        (6.0, 6.0, "WorkerCrashed"),
    ],
)
def test_run_hang_lasts_until_the_coordinator_or_the_watchdog_ends_it(
    watchdog_seconds: float, detected_after: float, fault_class: str
) -> None:
    durations = replace(SIMPLE, watchdog_seconds=watchdog_seconds)
    result = run((250.0, "NCCLWatchdogTimeout"), durations=durations)
    (incident,) = result.incidents
    assert incident.fault_class == fault_class
    assert result.badput_seconds["Detect"] == pytest.approx(detected_after, abs=0.5)
    assert result.finished


def test_run_that_hangs_before_its_first_step_waits_for_the_watchdog() -> None:
    result = run((-8.0, "NCCLWatchdogTimeout"))
    (incident,) = result.incidents
    assert incident.fault_class == "WorkerCrashed"
    assert result.badput_seconds["Start"] == pytest.approx(START - 8 + 60)


def test_run_drain_that_saves_in_time_loses_no_step() -> None:
    result = run((250.0, "PlannedMaintenance"), durations=replace(SIMPLE, save_seconds=30.0))
    assert result.steps_lost == 0
    assert result.badput_seconds["Drain"] == pytest.approx(30.0)
    (incident,) = result.incidents
    assert (incident.fault_class, incident.budget) == ("AskedToLeave", "None")


def test_run_drain_that_cannot_save_in_time_loses_steps() -> None:
    result = run((250.0, "PlannedMaintenance"), durations=replace(SIMPLE, save_seconds=90.0))
    assert result.steps_lost == 150  # step 200's save was not complete either
    assert result.finished


def test_run_broken_device_fails_again_until_its_node_is_drained() -> None:
    durations = replace(SIMPLE, health_seconds=12.0, fails_again_seconds=5.0)
    result = run((250.0, "FaultyGPU"), durations=durations, exclude_node_after=0)
    assert result.finished
    assert len(result.incidents) > 1
    assert result.stops == ()


def test_run_leaves_the_node_of_a_broken_device_once_the_operator_hears_of_it() -> None:
    durations = replace(SIMPLE, health_seconds=600.0, fails_again_seconds=5.0)
    result = run((250.0, "FaultyGPU"), durations=durations)
    assert [item.fault_class for item in result.incidents] == ["DeviceBroken", "AskedToLeave"]
    assert (result.stops, result.attempts) == ((), 1)
    assert result.badput_seconds["Stopped"] == 0.0


def test_run_broken_device_that_nothing_drains_is_stopped_by_the_operator() -> None:
    durations = replace(SIMPLE, health_seconds=600.0, fails_again_seconds=5.0)
    result = run((250.0, "FaultyGPU"), durations=durations, exclude_node_after=0)
    assert result.finished
    assert len(result.stops) == 1
    assert "faults in a row without a step" in result.stops[0]
    assert result.attempts == 2
    assert result.badput_seconds["Stopped"] == pytest.approx(1000.0)


def test_run_follows_the_fault_table_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is the operator's own: another table, another outcome."""
    row = next(row for row in fault_table.TABLE if row.name == "WorkerError")
    others = tuple(r for r in fault_table.TABLE if r is not row)
    stopping = replace(row, level="Stop")
    monkeypatch.setattr(fault_table, "TABLE", (stopping, *others))
    assert len(run((250.0, "SoftwareBug")).stops) == 1


@pytest.mark.parametrize("durations", [SIMPLE, IN_MEMORY], ids=["volume", "memory"])
@pytest.mark.parametrize("name", {entry.effect: name for name, entry in CLASSES.items()}.values())
def test_run_every_effect_ends_and_its_times_add_up(name: str, durations: Durations) -> None:
    hits = ((120.0, name), (240.0, name), (250.0, name))
    result = run(*hits, total_steps=400, durations=durations)
    assert result.finished
    assert result.steps == 400
    assert result.productive_seconds == pytest.approx(400.0)
    booked = result.productive_seconds + sum(result.badput_seconds.values())
    assert booked == pytest.approx(result.wall_seconds)
    assert all(seconds >= 0 for seconds in result.badput_seconds.values())


def test_run_is_the_same_for_the_same_trace() -> None:
    assert run((250.0, "FaultyGPU")) == run((250.0, "FaultyGPU"))


def test_run_with_an_interval_longer_than_the_faults_apart_is_cut_off() -> None:
    hits = tuple((60.0 * n, "WorkerKilled") for n in range(1, 50))
    result = run(*hits, horizon_seconds=2000.0)
    assert not result.finished
    assert result.wall_seconds == 2000.0


# Durations, sensitivity, command


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_seconds", 0.0),
        ("checkpoint_steps", 0),
        ("memory_steps", 0),
        ("load_seconds", -1.0),
        ("save_seconds", float("nan")),
    ],
)
def test_durations_nonsense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(SIMPLE, **{name: value})


def test_durations_automatic_interval_is_no_shorter_than_a_save() -> None:
    durations = replace(SIMPLE, checkpoint_steps=None, stall_seconds=2.0)
    assert durations.interval_steps(10_000.0) == 199  # Daly: sqrt(2 x 2 x 10,000) - 2, and terms
    assert replace(durations, save_seconds=600.0).interval_steps(10_000.0) == 600


def test_durations_of_memory_are_used_where_something_is_saved_there() -> None:
    assert set(IN_MEMORY.used()) - set(SIMPLE.used()) == {
        "memory_stall_seconds",
        "memory_copy_seconds",
        "memory_load_seconds",
        "memory_fetch_seconds",
    }
    assert "memory_steps" in SIMPLE.used()


def test_sensitivity_of_a_longer_load_is_a_lower_ettr() -> None:
    scenario = replace(scenarios.scout(), durations=SIMPLE, total_steps=300, spec=scout_spec())
    faults = (Fault(START + 150, "WorkerKilled", 0),)
    base = simulated(scenario, faults)
    loading = sensitivity(scenario, faults, "load_seconds")
    assert loading.halved.ettr > base.ettr > loading.doubled.ettr
    assert sensitivity(scenario, faults, "human_seconds").spread == 0


def test_command_scout_prints_json_with_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "scout", "--no-sensitivity", "-o", "json", "--stop-seconds", "3"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["simulated"] is True
    assert shown["finished"] is True
    assert shown["assumptions"]["stop_seconds"] == {
        "value": 3.0,
        "source": "given on the command line",
    }
    assert all(entry["source"] for entry in shown["assumptions"].values())


def test_command_recipe_with_a_trace_says_that_it_is_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = tmp_path / "faults.csv"
    faults.write_text("time_hours,class,node\n0.1,NodeLost,1\n")
    arguments = ["simulate", "-f", str(DEMO), "--trace", str(faults), "--no-sensitivity"]
    assert main([*arguments, "--step-seconds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "simulation" in shown
    assert "NodeLost 1" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scout", "--step-seconds", "0"], "step_seconds 0.0: give a positive number"),
        (["scout", "--trace", "BAD"], "line 2: class 'x'"),
        (["scout", "--trace", "/no/such.csv"], "No such file"),
        (["-f", "/no/such.yaml"], "No such file"),
    ],
)
def test_command_bad_input_is_one_clear_error(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.csv"
    bad.write_text("time_hours,class,node\n1,x,0\n")
    given = [str(bad) if argument == "BAD" else argument for argument in arguments]
    assert main(["simulate", *given]) == 1
    assert words in capsys.readouterr().err
