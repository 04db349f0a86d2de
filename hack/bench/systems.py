"""The three systems behind one interface: start, stop, whom a fault hits, and when all is whole."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hack.demo.kube import StepError, wait_for

from . import peers, trials
from .ground import RUN_NAME, Ground
from .logs import Logs
from .measure import DETECTED, Event
from .recreate import RecreateLoop
from .trials import Setup

PLAIN_WORKER = Path(__file__).parent / "plain_worker.py"  # pods see this checkout at its path
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
START_SECONDS, STOP_SECONDS = 180.0, 120.0


@dataclass(frozen=True)
class Pod:
    name: str
    namespace: str
    node: str


class System(Protocol):
    name: str

    def start(self, setup: Setup) -> None: ...
    def stop(self) -> None: ...
    def events(self) -> list[Event]: ...
    def victim(self, index: int) -> Pod: ...
    def is_whole(self) -> bool: ...


def pod(found: dict[str, Any]) -> Pod:
    metadata = found["metadata"]
    return Pod(metadata["name"], metadata["namespace"], found["spec"].get("nodeName", ""))


def is_running(found: dict[str, Any]) -> bool:
    return found["status"]["phase"] == "Running" and "deletionTimestamp" not in found["metadata"]


class Ours:
    """The run, suspended between its turns."""

    name = trials.OURS

    def __init__(self, ground: Ground, logs: Logs) -> None:
        self._kube, self._watch, self._logs = ground.kube, ground.watch, logs
        self._nodes = int(ground.watch.object()["spec"]["nodes"]["count"])
        self._spares = 0

    def start(self, setup: Setup) -> None:
        self._spares = setup.spares
        self._watch.patch({"suspend": False, "nodes": {"spares": setup.spares}})
        wait_for("our run to be whole", lambda: self.is_whole() or None,
                 timeout_seconds=START_SECONDS)  # fmt: skip

    def stop(self) -> None:
        self._watch.patch({"suspend": True})
        wait_for("our pods to end", lambda: None if any(self._pods()) else True,
                 timeout_seconds=STOP_SECONDS)  # fmt: skip

    def events(self) -> list[Event]:
        return self._logs.events(f"{RUN_NAME}-")

    def victim(self, index: int) -> Pod:
        """The pod of that rank; spares have none."""
        agent = next(a for a in self._status()["agents"] if a.get("rank") == index)
        return pod(self._kube.get("pod", agent["name"], "-n", self._watch.namespace))

    def is_whole(self) -> bool:
        """The round holds, and the spare waits with warm workers; no while nobody answers."""
        with contextlib.suppress(StepError):
            return self._is_whole()
        return False

    def _is_whole(self) -> bool:
        pods = [found for found in self._pods() if is_running(found)]
        if len(pods) < self._nodes + self._spares:
            return False
        status = self._status()
        ready = [a for a in status.get("agents", ()) if a["state"] in ("Running", "Waiting")]
        names = {found["metadata"]["name"] for found in pods}
        return not status["broken"] and names <= {a["name"] for a in ready}

    def _pods(self) -> list[dict[str, Any]]:
        return [p for p in self._watch.training_pods() if p["status"]["phase"] != "Failed"
                and p["status"]["phase"] != "Succeeded"]  # fmt: skip

    def _status(self) -> dict[str, Any]:
        path = (f"/api/v1/namespaces/{self._watch.namespace}/services/"
                f"{RUN_NAME}-coordinator:http/proxy/status")  # fmt: skip
        document: dict[str, Any] = json.loads(self._kube.raw(path))
        return document


class _Peer:
    """What both peers share: their objects and how their pods are looked at."""

    name: str

    def __init__(self, ground: Ground, logs: Logs) -> None:
        self._kube, self._logs, self._namespace = ground.kube, logs, ground.watch.namespace
        self._training_job = ground.training_job
        self._nodes = int(ground.watch.object()["spec"]["nodes"]["count"])
        self._kube.apply(peers.service(self._namespace, self.name),
                         peers.config_map(self._namespace, self.name, ground.run_json))  # fmt: skip
        self._setup = Setup()
        ground.link_inputs(self.name)

    def job(self, number: int) -> dict[str, Any]:
        return peers.job(self.name, self._training_job, number, self._nodes, str(PLAIN_WORKER),
                         self._setup.patience_seconds)  # fmt: skip

    def victim(self, index: int) -> Pod:
        current = [found for found in self._pods() if is_running(found)]
        return pod(next(f for f in current if f["metadata"]["labels"][INDEX_LABEL] == str(index)))

    def is_whole(self) -> bool:
        return sum(map(is_running, self._pods())) == self._nodes

    def await_end(self) -> None:
        wait_for(f"the pods of {self.name} to end", lambda: None if self._pods() else True,
                 timeout_seconds=STOP_SECONDS)  # fmt: skip

    def _pods(self) -> list[dict[str, Any]]:
        selector = f"{peers.SYSTEM_LABEL}={self.name}"
        found = self._kube.get("pods", "-n", self._namespace, "-l", selector)["items"]
        return [item for item in found if item["status"]["phase"] not in ("Failed", "Succeeded")]


class Recreate(_Peer):
    name = trials.RECREATE

    def __init__(self, ground: Ground, logs: Logs) -> None:
        super().__init__(ground, logs)
        self._loop = RecreateLoop(str(self._kube.kubeconfig), self._namespace, self.job)

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()
        self.await_end()

    def events(self) -> list[Event]:
        """Detected is what the loop acted on, not what a torchrun said before it ended."""
        told = self._logs.events(f"{self.name}-")
        return [event for event in told if event.kind != DETECTED] + self._loop.events


class Elastic(_Peer):
    name = trials.ELASTIC

    def __init__(self, ground: Ground, logs: Logs) -> None:
        super().__init__(ground, logs)
        self._number = 0

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._number += 1
        self._kube.apply(self.job(self._number))

    def stop(self) -> None:
        self._kube.run("delete", "job", f"{self.name}-{self._number}", "-n", self._namespace,
                       "--wait=false")  # fmt: skip
        self.await_end()

    def events(self) -> list[Event]:
        return self._logs.events(f"{self.name}-")


def system(name: str, ground: Ground, logs: Logs) -> System:
    kinds: dict[str, type[Ours] | type[Recreate] | type[Elastic]] = {
        kind.name: kind for kind in (Ours, Recreate, Elastic)
    }
    return kinds[name](ground, logs)
