"""The smallest PID 1: reaps whatever is orphaned in the pod, passes signals on, ends as its child.

The agent cannot do this itself: reaping every child would take the exit codes that
multiprocessing waits for. And the kernel ignores a SIGKILL from inside the pod for PID 1, while
the agent as its child can be killed, as fault injection does.
"""

from __future__ import annotations

import os
import signal

from . import lifeline

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def split() -> None:
    """Forks: returns in the child, which becomes the agent; the parent never returns."""
    own_pid = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_FORWARDED})
    child = os.fork()
    if child == 0:
        lifeline.bind_to_parent(own_pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, *_FORWARDED})
        return
    os._exit(watch(child))


def watch(child: int) -> int:
    """Passes signals on and reaps until `child` ends; the exit code that a shell would give it."""
    while True:
        received = signal.sigwait({signal.SIGCHLD, *_FORWARDED})
        if received != signal.SIGCHLD:
            os.kill(child, received)
            continue
        for pid, code in reaped():
            if pid == child:
                return code if code >= 0 else 128 - code


def reaped() -> list[tuple[int, int]]:
    """Children that have ended, with their exit codes; negative: ended by that signal."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))
