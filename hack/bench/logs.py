"""Follows the container logs of all nodes, where containerd writes them: nothing asks the cluster.

A pod's log is deleted with the pod, and a node without power keeps what was written: so lines are
read while they come, and kept here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from . import measure
from .measure import Event

LOOK_SECONDS = 0.1
_KEPT_LINES = 2000


class Logs:
    """Safe to read from any thread. Use as a context."""

    def __init__(self, nodes: Path, namespace: str) -> None:
        self._nodes, self._namespace = nodes, namespace
        self._offsets: dict[Path, int] = {}
        self._rests: dict[Path, bytes] = {}
        self._events: list[Event] = []
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Logs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._thread.join()

    def events(self, prefix: str) -> list[Event]:
        """Of the pods whose names begin so."""
        with self._changed:
            return [event for event in self._events if event.source.startswith(prefix)]

    def last_lines(self, prefix: str) -> list[str]:
        with self._changed:
            return [line for line in self._lines if line.startswith(prefix)]

    def wait(self, is_so: Callable[[], bool], timeout_seconds: float) -> bool:
        """Whether it came to be so in that time; looked at whenever there are new events."""
        with self._changed:
            return self._changed.wait_for(is_so, timeout_seconds)

    def _follow(self) -> None:
        while not self._is_closed.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        for path in self._nodes.glob(f"*/log/pods/{self._namespace}_*/*/*.log"):
            pod = path.parts[-3].split("_")[1]
            lines = self._new_lines(path)
            found = [event for line in lines if (event := measure.event(line, pod))]
            if not lines:
                continue
            with self._changed:
                self._lines = [*self._lines, *(f"{pod} {line}" for line in lines)][-_KEPT_LINES:]
                self._events += found
                self._changed.notify_all()

    def _new_lines(self, path: Path) -> list[str]:
        try:
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
        except FileNotFoundError:  # deleted just now
            return []
        self._offsets[path] = self._offsets.get(path, 0) + len(data)
        *whole, self._rests[path] = (self._rests.get(path, b"") + data).split(b"\n")
        return [line.decode(errors="replace") for line in whole]
