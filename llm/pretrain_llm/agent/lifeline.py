"""Ties a process's life to its parent's, by the kernel: even a SIGKILL of the parent ends it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # prctl(2)


def bind_to_parent(parent_pid: int) -> None:
    """Kills this process when its parent dies, also if that has happened already.

    The signal is sent when the *thread* that forked this process ends, so only a main thread may
    start one. It is not inherited: every generation binds itself.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)
