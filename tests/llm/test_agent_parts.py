"""The agent's small parts: reports, outbox, error files, PID 1, memory counter, environment."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from pretrain_llm import reports
from pretrain_llm.agent import __main__ as agent_main
from pretrain_llm.agent import inbox, link, memory, outbox, settings, worker_main, workers
from pretrain_llm.agent.bell import Bell
from pretrain_llm.agent.elastic import FinalWorkerError
from pretrain_llm.agent.link import Link, Standing
from pretrain_llm.agent.outbox import Outbox
from pretrain_llm.agent.output import KEPT_LINES, MAX_LINE_BYTES, Output
from pretrain_llm.agent.stop import StopRequestedError
from pretrain_llm.agent.workers import Ending
from pretrain_llm.contract import codec, environment, exit_codes, protocol
from pretrain_llm.contract.protocol import AgentEvent, AgentReport, Carried, RoundView
from pretrain_llm.contract.reports import FaultReport, RestoredReport, StepReport, WorkerReport
from pretrain_llm.contract.results import StageError
from pretrain_llm.contract.status import Replay
from pretrain_llm.errors import InputError

from .agent_world import ROOT, eventually, is_alive, small_run


def step(number: int) -> AgentEvent:
    return AgentEvent(worker=WorkerReport(0, 1, step=StepReport(number, 1.0, 1, 1.0, 1.0, 0.0)))


FAULT = AgentEvent(fault=FaultReport(round=1, rank=0, time=0.0, exit_code=1))


def test_outbox_acknowledged_events_are_dropped_once() -> None:
    box = Outbox()
    for number in range(5):
        box = outbox.with_event(box, step(number))
    box = outbox.without_acknowledged(box, 3)
    assert (box.first, box.events) == (3, (step(3), step(4)))
    assert outbox.without_acknowledged(box, 2) == box, "a late answer"


def test_outbox_full_drops_steps_before_faults() -> None:
    box = Outbox(capacity=2)
    for event in (FAULT, step(1), step(2)):
        box = outbox.with_event(box, event)
    assert (box.first, box.events) == (1, (FAULT, step(2)))


def test_outbox_batch_is_bounded() -> None:
    box = Outbox(events=tuple(step(number) for number in range(600)))
    assert len(outbox.next_batch(box)) == 500


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="agent-") as path:  # short: it holds Unix sockets
        yield Path(path)


def restored(step: int) -> WorkerReport:
    return WorkerReport(0, 1, restored=RestoredReport(step, 0.0))


def test_reports_arrive_in_order_at_the_inbox(folder: Path) -> None:
    taken: list[WorkerReport] = []
    inbox.start(folder / "s", taken.append)
    with closing(reports.Sender(str(folder / "s"))) as sender:
        for number in range(300):
            sender.send(restored(number))
        sender.flush(5.0)
    eventually(lambda: len(taken) == 300, "all reports", 30)
    assert taken == [restored(number) for number in range(300)]


def test_reports_nobody_reads_the_newest_are_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening,
        closing(reports.Sender(str(folder / "s"), kept=3)) as sender,
    ):
        listening.bind(str(folder / "s"))
        sent = 0
        while not sender.dropped:
            sent += 1
            sender.send(restored(sent))
        listening.setblocking(False)
        taken = []
        while not taken or taken[-1] != restored(sent):
            taken.append(codec.from_json(WorkerReport, listening.recv(1 << 16)))
            sender.flush(1.0)
    assert len(taken) == sent - 1, "one was dropped, the oldest of the three that waited"
    assert "reports: 1 never reached the agent" in capsys.readouterr().err


def test_reports_without_an_agent_do_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(environment.REPORT_SOCKET, raising=False)
    reports.send(restored(1))
    sender = reports.Sender(str(folder / "nobody"))
    sender.send(restored(1))
    assert sender.dropped == 0


def test_inbox_nonsense_is_skipped(folder: Path) -> None:
    taken: list[WorkerReport] = []
    inbox.start(folder / "s", taken.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        sending.sendto(b"\xff{", str(folder / "s"))
    with closing(reports.Sender(str(folder / "s"))) as sender:
        sender.send(restored(1))
    eventually(lambda: taken == [restored(1)], "the good report", 30)


def raising(error: BaseException) -> object:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (InputError("no", field="f", value=1, remedy="r"), exit_codes.BAD_INPUT, "InputError"),
        (KeyError("loss"), exit_codes.ERROR, "KeyError"),
        (SystemExit(exit_codes.SAVED), exit_codes.SAVED, None),
        (SystemExit(None), exit_codes.OK, None),
        (SystemExit("text"), exit_codes.ERROR, None),
    ],
)
def test_worker_error_becomes_its_code_and_file(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    kind: str | None,
) -> None:
    path = folder / "error.json"
    monkeypatch.setenv(environment.ERROR_FILE, str(path))
    assert worker_main.exit_code(lambda: raising(error)) == code
    assert path.exists() == (kind is not None)
    if kind:
        assert codec.from_json(StageError, path.read_bytes()).kind == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n", 2),
        ("", 0),
    ],
)
def test_oom_kills_are_read_from_both_cgroup_versions(text: str, expected: int) -> None:
    assert memory.oom_kills(text) == expected


def test_output_is_copied_and_its_last_lines_kept_without_waiting_for_its_end() -> None:
    reading, writing = multiprocessing.Pipe(duplex=False)
    log = io.BytesIO()
    output = Output(reading, log, b"[3] ")
    lines = [f"line {number}" for number in range(2 * KEPT_LINES)]
    os.write(writing.fileno(), "\n".join([*lines, "no end"]).encode())
    assert output.last_lines() == (*lines[-KEPT_LINES:], "no end")
    assert log.getvalue().decode().splitlines() == [f"[3] {line}" for line in lines]
    writing.close()
    eventually(lambda: log.getvalue().endswith(b"[3] no end\n"), "the end is copied too", 30)


def test_output_of_one_endless_line_is_cut_into_lines() -> None:
    reading, writing = multiprocessing.Pipe(duplex=False)
    output = Output(reading, io.BytesIO())
    os.write(writing.fileno(), b"x" * (2 * MAX_LINE_BYTES + 1))
    assert [len(line) for line in output.last_lines()] == [MAX_LINE_BYTES, MAX_LINE_BYTES, 1]
    writing.close()


CUDA = "CUDA error: an illegal memory access was encountered"


@pytest.mark.parametrize(
    ("code", "error", "stderr", "symptom", "lines"),
    [
        pytest.param(-6, None, (CUDA,), "DeviceError", (CUDA,), id="stderr alone"),
        pytest.param(1, CUDA, (), "DeviceError", (f"{CUDA}.",), id="its error alone"),
        pytest.param(1, "boom", ("ValueError: boom",), None, (), id="the error says it all"),
        pytest.param(1, None, ("ValueError: boom",), None, ("ValueError: boom",), id="no error"),
        pytest.param(-9, None, (CUDA,), None, (), id="killed from outside"),
    ],
)
def test_ending_says_what_its_error_and_stderr_come_to(
    code: int,
    error: str | None,
    stderr: tuple[str, ...],
    symptom: str | None,
    lines: tuple[str, ...],
) -> None:
    told = StageError(error, "RuntimeError", 1) if error else None
    fault = Ending(0, 1.0, code, out_of_memory=False, error=told, stderr=stderr).fault(1)
    assert (fault.symptom, fault.stderr) == (symptom, lines)


def test_error_of_any_length_is_told_by_its_beginning_and_its_end() -> None:
    error = StageError(f"first{'x' * 1_000_000}last", "CheckpointException", 1)
    told = Ending(0, 1.0, 1, out_of_memory=False, error=error).fault(1).error_message
    assert told
    assert (told[:5], told.rstrip(".")[-4:], len(told) < 5000) == ("first", "last", True)


def test_report_has_as_many_events_as_the_coordinator_takes() -> None:
    large = AgentEvent(fault=FaultReport(1, 0, 1.0, error_message="x" * 300_000))
    report = AgentReport("a", "a-1", 1, 0, "n", protocol.RUNNING, 1.0, events=(large,) * 8)
    body = link._body(report)
    assert len(body) <= protocol.MAX_REPORT_BYTES
    assert codec.from_json(AgentReport, body).events == (large,) * 2


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (RuntimeError("can't start new thread"), protocol.RUNNING, protocol.RUNNING),
        (RuntimeError("boom"), protocol.WAITING, protocol.LEFT),
        (StopRequestedError(is_saved=True), protocol.LEAVING, protocol.LEFT),
        (StopRequestedError(is_saved=True), protocol.FINISHED, protocol.FINISHED),
        (FinalWorkerError(StageError("b", "InputError", 64)), protocol.RUNNING, protocol.LEFT),
    ],
)
def test_last_word_of_an_agent_tells_a_failure_from_a_leave(
    monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception, state: str, said: str
) -> None:
    monkeypatch.setenv(environment.TERMINATION_LOG, str(folder / "log"))
    monkeypatch.setattr(agent_main, "StopRequest", Mock())
    monkeypatch.setattr(agent_main.fork_server, "start", Mock())
    monkeypatch.setattr(agent_main, "train", Mock(side_effect=error))
    spoken = Mock(standing=Standing(state))
    assert agent_main.run(Mock(), Mock(), spoken) != exit_codes.OK
    assert spoken.close.call_args.args[0] == said


def variables(folder: Path) -> dict[str, str]:
    (folder / "run.json").write_text(codec.to_json(small_run(2, 1)))
    return {
        environment.CONFIG: str(folder / "run.json"),
        environment.ATTEMPT: "1",
        environment.COORDINATOR: "host:8080",
        environment.STORE: "host:29400",
        environment.SLOT: "2",
        environment.POD_NAME: "pod-2",
        environment.GRACE_SECONDS: "60",
    }


class Process:
    """A worker whose exit code becomes known at once, or only once it is killed."""

    pid = 1 << 30  # of no process

    def __init__(self, code: int, is_known: bool) -> None:
        self.exitcode = code if is_known else None
        self._code = code

    def kill(self) -> None: ...

    def join(self, _seconds: float) -> None:
        self.exitcode = self._code


@pytest.mark.parametrize(
    ("code", "is_known", "told"),
    [
        pytest.param(-signal.SIGABRT, False, [-signal.SIGABRT], id="it still aborts"),
        pytest.param(-signal.SIGKILL, True, [-signal.SIGKILL], id="somebody else's SIGKILL"),
        pytest.param(-signal.SIGKILL, False, [], id="our SIGKILL"),
        pytest.param(-signal.SIGTERM, True, [], id="asked to leave before it trains"),
        pytest.param(exit_codes.SAVED, True, [], id="saved"),
    ],
)
def test_workers_killed_tell_what_had_failed_before_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_known: bool, told: list[int]
) -> None:
    started = (Process(code, is_known), Output(multiprocessing.Pipe(False)[0], io.BytesIO()))
    monkeypatch.setattr(workers, "_started", lambda *_, **__: started)
    variables = {environment.ERROR_FILE: str(folder / "error")}
    killed = workers.Workers([worker_main.Launch(0, 0, "none:none", variables)])
    assert [ending.exit_code for ending in killed.kill()] == told
    assert killed.kill() == []


def test_link_keeps_what_it_carries_until_the_new_coordinator_has_heard_it(folder: Path) -> None:
    mine = Link(settings.settings(variables(folder)), Bell())
    rich = Carried(initial_loss=8.0, highest_step=50, replay=Replay(21, 0.0))
    poor = Carried(initial_loss=8.0, highest_step=50)  # from another agent that knew less
    mine._hear(RoundView("first", 1, carried=rich), mine._report())
    mine._hear(RoundView("second", 1, carried=poor), None)
    assert mine._report().carried == rich
    mine._hear(RoundView("second", 2, carried=rich), mine._report())
    later = Carried(initial_loss=8.0, highest_step=60, replay=Replay(21, 0.0))
    mine._hear(RoundView("second", 3, carried=later), None)
    assert mine._report().carried == later


def test_settings_come_from_the_pods_environment(folder: Path) -> None:
    found = settings.settings(variables(folder))
    assert (found.slot, found.store_host, found.store_port) == (2, "host", 29400)
    assert found.save_seconds == 57
    assert found.incarnation != settings.settings(variables(folder)).incarnation


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (environment.SLOT, "two", "JOB_COMPLETION_INDEX: expected a number (found two)"),
        (environment.STORE, "host", "PRETRAIN_STORE: expected host:port (found host)"),
        (environment.POD_NAME, "", "PRETRAIN_POD_NAME: a training pod needs this variable"),
        (environment.GRACE_SECONDS, "1m", "PRETRAIN_GRACE_SECONDS: expected a number (found 1m)"),
    ],
)
def test_settings_wrong_value_names_the_variable(
    folder: Path, name: str, value: str, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        settings.settings({**variables(folder), name: value})
    assert str(raised.value).startswith(message)


PID_ONE = """
import ctypes, os, subprocess, sys, time
from pretrain_llm.agent import init
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to PID 1
init.split()
script = "import os, sys; pid = os.fork(); pid and print(pid, flush=True); pid and os._exit(0)"
orphan = int(subprocess.check_output([sys.executable, "-c", script]))
print(os.getpid(), orphan, flush=True)
{ending}
"""


def pid_one(ending: str) -> tuple[subprocess.Popen[str], int, int]:
    """A process with PID 1's duties, its child and an orphan that it inherited."""
    process = subprocess.Popen(
        [sys.executable, "-c", PID_ONE.format(ending=ending)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "llm")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    child, orphan = map(int, process.stdout.readline().split())
    process.stdout.close()
    return process, child, orphan


def test_pid_one_reaps_orphans_and_passes_signals_on() -> None:
    process, _, orphan = pid_one("time.sleep(60)")
    eventually(lambda: not Path(f"/proc/{orphan}").exists(), "the orphan is reaped", 10)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM


def test_pid_one_ends_with_its_childs_code() -> None:
    process, _, _ = pid_one("os._exit(75)")
    assert process.wait(10) == exit_codes.SAVED


def test_pid_one_killed_its_child_dies() -> None:
    process, child, _ = pid_one("time.sleep(60)")
    process.kill()
    process.wait()
    eventually(lambda: not is_alive(child), "the child dies", 10)
