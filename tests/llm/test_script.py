"""pretrain_llm.script by itself: checkpoints that count, saves that are due, by command too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain_llm import reports, script
from pretrain_llm.agent import command
from pretrain_llm.checkpoints import folders
from pretrain_llm.contract import config, environment
from pretrain_llm.contract.reports import WorkerReport
from pretrain_llm.errors import InputError, NonFiniteError

from .runs import write_config


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[WorkerReport]:
    """A fresh process of a run that saves every 10 steps and at step 3; what it reports."""
    set_up(tmp_path, monkeypatch, config.CheckpointConfig(2, interval=10, keep_steps=(3,)))
    found: list[WorkerReport] = []
    monkeypatch.setattr(reports, "send", found.append)
    return found


def set_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch, policy: config.CheckpointConfig, *words: str
) -> None:
    run = config.ScriptRunConfig(
        run="mine",
        volume=str(folder),
        nodes=config.NodesConfig(1, 0, 1, "cpu"),
        checkpoint=policy,
        script=config.ScriptConfig(words or ("true",), 100, str(folder)),
    )
    monkeypatch.setenv(environment.CONFIG, str(write_config(run, folder / "run.json")))
    monkeypatch.setattr(script, "_process", script._Process())


def save(step: int, text: str = "weights") -> Path:
    folder = script.begin_checkpoint(step)
    (folder / "state").write_text(text)
    script.saved(step, tokens=step * 8)
    return folder


@pytest.mark.usefixtures("told")
def test_resume_takes_the_newest_that_counts() -> None:
    assert script.resume_from() is None
    save(10)
    folder = save(20)
    (script.begin_checkpoint(30) / "state").write_text("half")
    assert script.resume_from() == script.Checkpoint(20, 160, folder)
    assert folders.steps(folder.parent) == (10, 20), "what was never finished is gone"


def test_resume_moves_a_damaged_one_away_and_says_so(told: list[WorkerReport]) -> None:
    save(10)
    (save(20) / "state").write_text("WEIGHTS")
    found = script.resume_from()
    assert found
    assert found.step == 10
    assert told[-1].quarantined
    assert (told[-1].quarantined.step, "checksum" in told[-1].quarantined.reason) == (20, True)


@pytest.mark.usefixtures("told")
def test_retention_is_the_specs() -> None:
    for step in (3, 10, 20, 30):
        save(step)
    assert folders.steps(save(40).parent) == (3, 30, 40)


def test_save_begun_again_starts_from_an_empty_folder(told: list[WorkerReport]) -> None:
    save(10)
    assert list(script.begin_checkpoint(10).iterdir()) == []
    assert [bool(report.saving) for report in told] == [True, False, True, True]
    assert told[1].saved
    assert told[1].saved.bytes == len("weights")


@pytest.mark.usefixtures("told")
def test_save_is_due_by_interval_and_kept_steps() -> None:
    assert [step for step in range(1, 31) if script.should_save(step)] == [3, 10, 20, 30]


def test_save_is_due_by_what_the_agent_heard_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(tmp_path, monkeypatch, config.CheckpointConfig(2, min_interval=5))
    file = tmp_path / "interval"
    monkeypatch.setenv(environment.INTERVAL_FILE, str(file))
    assert [script.should_save(step) for step in (4, 5)] == [False, True]
    save(5)
    file.write_text("20")
    assert [script.should_save(step) for step in (24, 25)] == [False, True]


def test_step_tells_its_time_and_rate(told: list[WorkerReport]) -> None:
    script.ready(0)
    script.report(1, 2.5, tokens=64)
    assert told[0].restored
    assert told[0].restored.source == "Scratch"
    step = told[1].step
    assert step
    assert (step.step, step.loss, step.tokens) == (1, 2.5, 64)
    assert step.tokens_per_second == pytest.approx(64 / step.seconds)


def test_loss_that_is_no_number_ends_the_program(told: list[WorkerReport]) -> None:
    with pytest.raises(NonFiniteError, match="loss is not finite"):
        script.report(7, float("nan"), tokens=1)
    assert told == []


@pytest.mark.usefixtures("told")
def test_sigterm_is_a_wish_once_the_program_is_ready() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        script.ready(0)
        assert not script.stop_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert script.stop_requested()
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(SystemExit) as left:
        script.leave()
    assert left.value.code == 75


def test_without_a_run_nothing_is_resumed_saved_or_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.CONFIG, str(tmp_path / "none.json"))
    monkeypatch.delenv(environment.REPORT_SOCKET, raising=False)
    assert script.resume_from() is None
    assert not script.should_save(10)
    script.report(1, 1.0, tokens=1)
    with pytest.raises(script.NoRunError, match=environment.CONFIG):
        script.begin_checkpoint(10)


def test_commands_save_and_resume_for_another_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(tmp_path, monkeypatch, config.CheckpointConfig(2, interval=10))
    folder = Path(called("begin", "10"))
    (folder / "state").write_text("weights")
    called("saved", "10", "--tokens", "80")
    assert called("resume-from") == f"10 80 {folder}"


def called(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pretrain_llm.script", *words],
        env=os.environ | {"PYTHONPATH": str(Path(script.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("words", "is_there", "field"),
    [(("no-such-program",), True, "command"), (("true",), False, "workingDirectory")],
)
def test_program_that_is_not_there_is_bad_input(
    words: tuple[str, ...],
    is_there: bool,
    field: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    set_up(folder, monkeypatch, config.CheckpointConfig(2), *words)
    if not is_there:
        (folder / "run.json").rename(tmp_path / "run.json")
        monkeypatch.setenv(environment.CONFIG, str(tmp_path / "run.json"))
        folder.rmdir()
    with pytest.raises(InputError) as refused:
        command.main()
    assert refused.value.field == f"spec.script.{field}"
