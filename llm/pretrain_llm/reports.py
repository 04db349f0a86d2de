"""How a worker reports to its agent: one datagram a report, over a Unix socket.

`send` never blocks and never raises, so that reporting cannot hurt training; outside an agent it
does nothing. While the agent does not read, reports wait here, KEPT of them, and the oldest are
dropped first. So what can be lost is: old reports of an agent that stands still for KEPT reports
(its coordinator being away does not matter: the agent keeps them), and what a worker had not sent
yet when it was killed. `flush`, which the agent's wrapper calls when a worker ends by itself,
waits for the rest to be taken and says on stderr what was dropped.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from collections import deque

from .contract import codec, environment
from .contract.reports import WorkerReport

KEPT = 1000


class Sender:
    """Sends datagrams to one address, in order, keeping those that could not be sent yet."""

    def __init__(self, path: str, kept: int = KEPT) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque(maxlen=kept)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.dropped = 0

    def send(self, report: WorkerReport) -> None:
        with self._lock:
            self.dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(codec.to_json(report).encode())
            self._send_waiting()

    def flush(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._lock:
            while not self._send_waiting() and self._socket and time.monotonic() < deadline:
                select.select((), (self._socket,), (), 0.05)
        lost = self.dropped + len(self._waiting)
        if lost:
            print(f"reports: {lost} never reached the agent at {self._path}", file=sys.stderr)

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    def _send_waiting(self) -> bool:
        """Whether all are sent."""
        try:
            connected = self._connected()
            while self._waiting:
                connected.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            return False
        except OSError:
            self._disconnect()  # the agent's socket is not there (any more): try anew next time
            return False
        return True

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.connect(self._path)
        return self._socket

    def _disconnect(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


_sender: Sender | None = None


def send(report: WorkerReport) -> None:
    """Tells the agent; does nothing where there is none."""
    global _sender
    path = os.environ.get(environment.REPORT_SOCKET)
    if not path:
        return
    if _sender is None:
        _sender = Sender(path)
    _sender.send(report)


def flush(seconds: float = 2.0) -> None:
    if _sender is not None:
        _sender.flush(seconds)
        _sender.close()
