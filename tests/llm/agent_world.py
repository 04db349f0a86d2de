"""A coordinator and its agents as real processes on this machine, for the agent's tests."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pretrain_llm.contract import codec, environment
from pretrain_llm.contract.config import AnyConfig, RunConfig
from pretrain_llm.contract.status import StatusDocument

from . import small_worker
from .runs import run_config, write_config

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120.0  # of a machine that does much else


def small_run(nodes: int, spares: int = 0, devices_per_node: int = 1) -> RunConfig:
    """A run whose workers are small_worker's: they read nothing of it, and end when told to."""
    shape = {"count": nodes, "spares": spares, "devices_per_node": devices_per_node}
    endless = {"steps": 1_000_000}
    return run_config(Path("unused"), "small", nodes=shape, training=endless)


def eventually(look: Callable[[], T | None], what: str, seconds: float = DEADLINE_SECONDS) -> T:
    """The first true answer of `look`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := look():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def steps_since_save(document: StatusDocument) -> int:
    """0 also where nothing is saved. Faults are best put between saves: a round that stops while
    it saves is given half an hour, and one that stops right after it has lost nothing.
    """
    if document.progress is None or document.latest_checkpoint is None:
        return 0
    return document.progress.step - document.latest_checkpoint.step


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        port: int = probing.getsockname()[1]
        return port


class World:
    """Starts processes, asks for the status, and leaves nothing behind."""

    def __init__(
        self,
        run: AnyConfig,
        worker: str | None = "tests.llm.small_worker:main",
        preload: str | None = "tests.llm.small_worker",
        coordinator_options: Sequence[str] = (),
        *,
        allows_faults: bool = False,
        vanished_seconds: float = 2.0,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="agents-"))  # short: it holds Unix sockets
        self.http_port, self.store_port = free_port(), free_port()
        self.config = run
        self._coordinator_options = coordinator_options
        self._allows_faults = allows_faults
        given = (("--worker", worker), ("--preload", preload))  # None: the agent's own choice
        self._worker = [word for option, value in given if value for word in (option, value)]
        self._vanished = ["--vanished-seconds", str(vanished_seconds)]
        write_config(run, self.folder / "run.json")
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.coordinator = self.start_coordinator()
        for slot in range(run.nodes.count + run.nodes.spares):
            self.start_agent(slot)

    def start_coordinator(self) -> subprocess.Popen[bytes]:
        ports = ["--http-port", str(self.http_port), "--store-port", str(self.store_port)]
        command = ["-m", "pretrain_llm.coordinator", *ports, *self._coordinator_options]
        self.coordinator = self._start("coordinator", command)
        return self.coordinator

    def start_agent(self, slot: int, name: str | None = None) -> str:
        name = name or f"pod-{slot}"
        (self.folder / name).mkdir(exist_ok=True)
        options = [*self._vanished, "--memory-port", "0"]
        arguments = ["-m", "pretrain_llm.agent", *self._worker, *options]
        self.agents[name] = self._start(name, arguments, self._pod_variables(slot, name))
        return name

    def inject(self, name: str, kind: str, *options: str) -> str:
        """What `pretrain faults inject` does by exec in the pod; what that says."""
        done = self._injected(name, kind, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def injects(self, name: str, kind: str, *options: str) -> bool:
        """Whether that pod could do it now."""
        return self._injected(name, kind, *options).returncode == 0

    def _injected(self, name: str, kind: str, *options: str) -> subprocess.CompletedProcess[str]:
        variables = self._variables() | self._pod_variables(int(name[-1]), name)
        command = [sys.executable, "-m", "pretrain_llm.faults", kind, *options]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    def _pod_variables(self, slot: int, name: str) -> dict[str, str]:
        scratch = self.folder / name
        return {
            environment.COORDINATOR: f"127.0.0.1:{self.http_port}",
            environment.STORE: f"127.0.0.1:{self.store_port}",
            environment.SLOT: str(slot),
            environment.POD_NAME: name,
            environment.NODE_NAME: f"node-{slot}",
            environment.SCRATCH: str(scratch),
            environment.TERMINATION_LOG: str(scratch / "termination-log"),
            environment.MEMORY: str(self.memory(name)),
            environment.MEMORY_TOKEN: "token",
            environment.POD_IP: "127.0.0.1",
            small_worker.FOLDER: str(self.folder),
            environment.FAULT_INJECTION: str(self._allows_faults).lower(),
        }

    def _variables(self) -> dict[str, str]:
        return os.environ | {
            environment.CONFIG: str(self.folder / "run.json"),
            environment.ATTEMPT: "1",
            "PYTHONPATH": os.pathsep.join((str(ROOT / "llm"), str(ROOT))),
            "OMP_NUM_THREADS": "1",
        }

    def _start(
        self, name: str, arguments: list[str], variables: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=self._variables() | (variables or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> StatusDocument | None:
        """None while there is no coordinator."""
        try:
            text = self.get("/status")
        except (OSError, http.client.HTTPException):
            return None
        return codec.from_json(StatusDocument, text)

    def get(self, path: str) -> bytes:
        url = f"http://127.0.0.1:{self.http_port}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
            return body

    def seen(
        self,
        is_so: Callable[[StatusDocument], bool],
        what: str,
        seconds: float = DEADLINE_SECONDS,
    ) -> StatusDocument:
        """The first status document for which `is_so`."""

        def look() -> StatusDocument | None:
            status = self.status()
            return status if status and is_so(status) else None

        try:
            return eventually(look, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log_ends()}") from None

    def stepping(
        self, above: int = 0, after_round: int = 0, seconds: float = DEADLINE_SECONDS
    ) -> StatusDocument:
        """Waits for steps above `above`, in a round after `after_round`."""
        return self.seen(
            lambda s: bool(
                s.round > after_round
                and not s.broken
                and s.progress
                and s.progress.step > above
                and (s.round_formed_at or 0) < s.progress.time
            ),
            f"steps above {above} after round {after_round}",
            seconds,
        )

    def recovered(self, broken_round: int) -> StatusDocument:
        """Waits until the incident of `broken_round` is over."""
        self.stepping(after_round=broken_round)
        return self.seen(
            lambda s: bool(s.incidents) and s.incidents[-1].first_step_seconds is not None,
            f"the recovery of round {broken_round}",
        )

    def members(self) -> tuple[str, ...]:
        """The agents of the running round, by rank."""

        def look() -> tuple[str, ...] | None:
            status = self.status()
            ranked = [a for a in status.agents if a.rank is not None] if status else []
            names = tuple(a.name for a in sorted(ranked, key=lambda a: a.rank or 0))
            return names if len(names) == self.config.nodes.count else None

        return eventually(look, "all members are known")

    @staticmethod
    def state(status: StatusDocument, name: str) -> str | None:
        return next((agent.state for agent in status.agents if agent.name == name), None)

    def kill_worker(self, name: str, local_rank: int) -> None:
        os.kill(self.worker_pids(name)[local_rank], signal.SIGKILL)

    def worker_pids(self, name: str) -> list[int]:
        document = json.loads((self.folder / name / "workers.json").read_text())
        return [worker["pid"] for worker in document["workers"]]

    def memory(self, name: str) -> Path:
        """The agent's tmpfs."""
        return self.folder / name / "memory"

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _log_ends(self) -> str:
        return "\n".join(f"== {f.name}\n{f.read_text()[-2000:]}" for f in self.folder.glob("*.log"))

    def close(self) -> None:
        """Kills what it started; workers and fork servers die with their agents."""
        pids = [
            pid
            for name in self.agents
            if (self.folder / name / "workers.json").exists()
            for pid in self.worker_pids(name)
        ]
        for process in (*self.agents.values(), self.coordinator):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        eventually(lambda: not any(is_alive(pid) for pid in pids), "the workers are gone", 10)
        shutil.rmtree(self.folder)
