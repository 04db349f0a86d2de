"""What runs inside a worker before and after its function.

The function's exception becomes a StageError in the error file and its exit code; a SystemExit
passes. The process then ends at once: threads that a crashed trainer left behind cannot keep it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from .. import reports
from ..contract import codec, environment, exit_codes
from ..errors import stage_error
from . import lifeline, stacks


@dataclass(frozen=True)
class Launch:
    """One worker to start."""

    rank: int  # in the world
    local_rank: int
    function: str  # module:function
    variables: dict[str, str]


def run(launch: Launch, stdout: Connection | None, stderr: Connection) -> None:
    """Runs in the forked process and never returns. Without a `stdout` it keeps the pod's."""
    from .fork_server_preload import FORK_SERVER_PID

    lifeline.bind_to_parent(FORK_SERVER_PID)
    os.setpgid(0, 0)  # so that whatever it starts is killed with it
    os.environ.update(launch.variables)
    if stdout is not None:
        os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    stacks.answer(launch.variables[environment.STACK_FILE])
    code = exit_code(lambda: imported(launch.function)())
    reports.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def imported(function: str) -> Callable[[], object]:
    """The function named `module:function`."""
    module, _, name = function.partition(":")
    found: Callable[[], object] = getattr(importlib.import_module(module), name)
    return found


def exit_code(work: Callable[[], object]) -> int:
    """Runs `work`; its exit code, with the reason in the error file where it failed."""
    try:
        work()
    except SystemExit as ending:
        if isinstance(ending.code, str):
            print(ending.code, file=sys.stderr)
            return exit_codes.ERROR
        return ending.code or exit_codes.OK
    except BaseException as error:
        traceback.print_exc()
        failure = stage_error(error)
        _leave_error(codec.to_json(failure))
        return failure.exit_code
    return exit_codes.OK


def _leave_error(text: str) -> None:
    path = os.environ[environment.ERROR_FILE]
    with open(path + ".part", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".part", path)
