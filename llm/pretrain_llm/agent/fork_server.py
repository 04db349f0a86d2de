"""The fork server that workers come from: it has imported all they need, and holds no device.

multiprocessing's own, with two additions that its preload hook allows: it dies with the agent, and
a preload that fails says so (multiprocessing drops an ImportError without a word).

docs/checkpoints.md has what that saves: workers of a warm server and of a cold one.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess

from . import lifeline

Process = ForkServerProcess
CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")

_AGENT_PID = "PRETRAIN_AGENT_PID"
_PRELOAD = "PRETRAIN_PRELOAD"


def start(preload: str) -> None:
    """Starts it, from the main thread, and returns before its imports are done."""
    os.environ[_AGENT_PID] = str(os.getpid())
    os.environ[_PRELOAD] = preload
    CONTEXT.set_forkserver_preload(["pretrain_llm.agent.fork_server_preload"])
    forkserver.ensure_running()


def wait_until_warm() -> None:
    """Returns once the fork server has forked: its imports are done."""
    probe = CONTEXT.Process(target=_nothing, name="warm-up")
    probe.start()
    probe.join()


def prepare() -> None:
    """Runs inside the fork server, before it takes requests."""
    lifeline.bind_to_parent(int(os.environ[_AGENT_PID]))
    try:
        importlib.import_module(os.environ[_PRELOAD])
    except Exception:
        # Workers start cold, and report the error as theirs.
        traceback.print_exc()


def _nothing() -> None:
    """The work of the process that shows that the fork server forks."""
