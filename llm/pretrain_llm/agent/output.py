"""What workers write: copied to the pod's log line by line, and the end of it kept.

A worker that dies in C++ leaves no error file: why it died is in the last lines of its stderr.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import BinaryIO

KEPT_LINES = 400  # NCCL's abort prints a stack of some 40
MAX_LINE_BYTES = 8192  # of a longer one, each piece counts as a line
CHUNK_BYTES = 1 << 16


class Output:
    """One stream of one worker, followed by a thread until every writer has closed it."""

    def __init__(self, reading: Connection, log: BinaryIO, prefix: bytes = b"") -> None:
        self._fd = os.dup(reading.fileno())
        reading.close()
        os.set_blocking(self._fd, False)
        self._log, self._prefix = log, prefix
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._unfinished = b""
        self._is_open = True
        self._lock = threading.Lock()
        threading.Thread(target=self._follow, name="output", daemon=True).start()

    def last_lines(self) -> tuple[str, ...]:
        """With all that was written until now: what a dead process wrote lies in the pipe.

        Does not wait for the end of the stream, which a process that it started may keep open.
        """
        with self._lock:
            self._read()
            lines = (*self._lines, self._unfinished)
        return tuple(line.decode(errors="replace") for line in lines if line)

    def _follow(self) -> None:
        while True:
            select.select((self._fd,), (), ())
            with self._lock:
                self._read()
                if not self._is_open:
                    os.close(self._fd)
                    return

    def _read(self) -> None:
        """All that is there now."""
        try:
            while self._is_open:
                chunk = os.read(self._fd, CHUNK_BYTES)
                self._is_open = bool(chunk)
                self._take(chunk)
        except BlockingIOError:
            return

    def _take(self, chunk: bytes) -> None:
        """An empty chunk is the end."""
        *lines, rest = (self._unfinished + chunk).split(b"\n")
        while len(rest) > MAX_LINE_BYTES or (rest and not chunk):
            lines.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._unfinished = rest
        self._lines.extend(lines)
        self._log.write(b"".join(self._prefix + line + b"\n" for line in lines))
        self._log.flush()
