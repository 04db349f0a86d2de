"""Real worker processes for tests: forked from one warm server, watched through their reports.

Importing torch and torchtitan once for the whole session is what makes dozens of runs affordable.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from pretrain_llm.contract import codec, config, environment, exit_codes
from pretrain_llm.contract.reports import WorkerReport
from pretrain_llm.contract.results import StageError

from .runs import write_config

PRELOAD = "pretrain_llm.training.preload"
WORKER = "pretrain_llm.training.worker:main"
DEADLINE_SECONDS = 120.0
POLL_SECONDS = 0.005
MAX_ROUNDS = 8


@dataclass
class World:
    """The workers of one round."""

    workers: list[BaseProcess]
    folder: Path  # of logs and error files
    reports: list[WorkerReport] = field(default_factory=list)

    @property
    def losses(self) -> dict[int, float]:
        """By step."""
        return {report.step.step: report.step.loss for report in self.reports if report.step}

    @property
    def saved_steps(self) -> list[int]:
        return [report.saved.step for report in self.reports if report.saved]

    @property
    def restored_step(self) -> int:
        return next(report.restored.step for report in self.reports if report.restored)

    def error(self, rank: int = 0) -> StageError:
        return codec.from_json(StageError, (self.folder / f"error-{rank}.json").read_bytes())

    def log(self, rank: int = 0) -> str:
        path = self.folder / f"log-{rank}.txt"
        return path.read_text() if path.exists() else ""

    def wait_for(self, condition: Callable[[World], bool]) -> None:
        """Returns once the reports meet the condition."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition(self):
            assert time.monotonic() < deadline, self._story("the condition was not met")
            assert any(w.is_alive() for w in self.workers), self._story("all workers have left")
            time.sleep(POLL_SECONDS)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends every worker a signal."""
        for worker in self.workers:
            assert worker.pid
            os.kill(worker.pid, number)

    def exit_codes(self) -> list[int | None]:
        """Waits for all workers."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        for worker in self.workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        assert not any(w.is_alive() for w in self.workers), self._story("workers do not end")
        return [worker.exitcode for worker in self.workers]

    def finish(self) -> World:
        codes = self.exit_codes()
        assert set(codes) == {0}, self._story(f"exit codes {codes}")
        return self

    def _story(self, problem: str) -> str:
        logs = (f"--- rank {rank}\n{self.log(rank)}" for rank in range(len(self.workers)))
        return "\n".join((problem, *logs))


@contextmanager
def world(
    run: config.RunConfig,
    ranks: int = 1,
    function: str = WORKER,
    variables: dict[str, str] | None = None,
) -> Iterator[World]:
    """Starts the workers of a run; whatever is still alive at the end is killed."""
    with tempfile.TemporaryDirectory(prefix="world-") as name:
        folder = Path(name)
        config_path = write_config(run, folder / "run.json")
        inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        inbox.bind(str(folder / "reports"))
        own = {environment.CONFIG: str(config_path), **(variables or {})}
        started = World(_started(folder, own, ranks, function), folder)
        listener = threading.Thread(target=_listen, args=(inbox, started), daemon=True)
        listener.start()
        try:
            yield started
        finally:
            for worker in started.workers:
                worker.kill()
                worker.join()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as closer:
                closer.sendto(b"", str(folder / "reports"))
            listener.join()
            inbox.close()


def warm_up() -> None:
    """Starts the fork server and returns once it has imported what workers need.

    Python 3.11's preloads with the path of its own start, and ignores imports that fail.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOAD])
    first = context.Process(target=os.getpid)
    first.start()
    first.join()


def trained(run: config.RunConfig, ranks: int = 1) -> World:
    """A run trained to its end."""
    with world(run, ranks) as workers:
        return workers.finish()


def trained_in_rounds(run: config.RunConfig, ranks: int = 1) -> list[World]:
    """Worlds one after the other until the run has finished, as a coordinator starts them."""
    found: list[World] = []
    while not found or set(found[-1].exit_codes()) != {exit_codes.OK}:
        assert len(found) < MAX_ROUNDS
        with world(run, ranks) as workers:
            codes = set(workers.exit_codes())
            assert codes <= {exit_codes.OK, exit_codes.SAVED}, workers.log()
        found.append(workers)
    return found


def all_losses(worlds: list[World]) -> dict[int, float]:
    """By step, of all rounds; a step that was trained again has its last one."""
    return {step: loss for each in worlds for step, loss in each.losses.items()}


def _started(
    folder: Path, variables: dict[str, str], ranks: int, function: str
) -> list[BaseProcess]:
    context = multiprocessing.get_context("forkserver")
    shared = {
        **variables,
        environment.REPORT_SOCKET: str(folder / "reports"),
        environment.INTERVAL_FILE: str(folder / "save-interval"),
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    workers: list[BaseProcess] = []
    for rank in range(ranks):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = ({**shared, **own}, str(folder), function)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        workers.append(worker)
    return workers


def _work(variables: dict[str, str], folder: str, function: str) -> None:
    """In the forked process; ends it as an agent's wrapper does."""
    os.environ.update(variables)
    rank = variables["RANK"]
    log = os.open(f"{folder}/log-{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from pretrain_llm import reports
    from pretrain_llm.agent.worker_main import imported
    from pretrain_llm.errors import stage_error

    code = 0
    try:
        imported(function)()
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException as error:
        traceback.print_exc()
        failure = stage_error(error)
        Path(f"{folder}/error-{rank}.json").write_text(codec.to_json(failure))
        code = failure.exit_code
    reports.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _listen(inbox: socket.socket, listened_to: World) -> None:
    while text := inbox.recv(1 << 16):
        listened_to.reports.append(codec.from_json(WorkerReport, text))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
