"""Kills a function with SIGKILL right before its n-th change of the file system."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

CHANGES = {
    "os.chmod",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "tempfile.mkstemp",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def kills(prepare: Callable[[], tuple[Any, ...]], function: Callable[..., object]) -> Iterator[int]:
    """Prepares, then runs the function and kills it at its first change, its second, and so on.

    Yields after each kill; ends when a run got through. `function`: importable by name.
    """
    context = multiprocessing.get_context("forkserver")
    number = 1
    while True:
        arguments = prepare()
        child = context.Process(target=_run, args=(number, function, arguments))
        child.start()
        child.join()
        if child.exitcode == 0:
            return
        assert child.exitcode == -signal.SIGKILL, child.exitcode
        yield number
        number += 1


def _run(number: int, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    left = number

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES or (event == "open" and _writes(details)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    function(*arguments)
    os._exit(0)


def _writes(details: tuple[Any, ...]) -> bool:
    flags = details[2]
    return isinstance(flags, int) and bool(flags & WRITING)
