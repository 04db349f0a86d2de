"""Wakes the main thread, from any thread or signal handler, whatever it waits for."""

from __future__ import annotations

import contextlib
import os
import select


class Bell:
    """An eventfd: rung any number of times, heard once."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def wait(self, seconds: float) -> None:
        select.select((self.fd,), (), (), seconds)
        self.clear()
