"""Takes the workers' reports from their socket, and hands each on."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from ..contract import codec
from ..contract.reports import WorkerReport

MAX_DATAGRAM_BYTES = 1 << 16

logger = logging.getLogger(__name__)


def start(path: Path, take: Callable[[WorkerReport], None]) -> None:
    """Binds the socket and reads it, in a thread, for as long as the agent lives."""
    path.unlink(missing_ok=True)  # of a container that ended in this pod
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    path.chmod(0o600)
    threading.Thread(target=_read, args=(listening, take), name="inbox", daemon=True).start()


def _read(listening: socket.socket, take: Callable[[WorkerReport], None]) -> None:
    while True:
        datagram = listening.recv(MAX_DATAGRAM_BYTES)
        try:
            report = codec.from_json(WorkerReport, datagram)
        except codec.DecodeError as error:
            logger.warning("a worker's report was not understood: %s", error)
        else:
            take(report)
