"""A worker that becomes the program of a script run: same process, group, output and parent.

Nothing of the program can be imported before: its interpreter is its own, and may not be Python's.
So the fork server imports only this module, and every round starts the program cold.
"""

from __future__ import annotations

import os
import signal

from ..contract import config, environment
from ..errors import InputError


def main() -> None:
    """Never returns. Raises InputError where the program cannot be started."""
    run = config.load_any(os.environ.get(environment.CONFIG, environment.CONFIG_PATH))
    assert isinstance(run, config.ScriptRunConfig)
    script = run.script
    _enter(script.working_directory)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and exec would keep it so
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(script.command[0], script.command)  # noqa: S606  no shell, on purpose
    except OSError as error:
        raise _refused("command", script.command[0], error) from error


def _enter(folder: str | None) -> None:
    if folder is None:
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise _refused("workingDirectory", folder, error) from error


def _refused(field: str, value: str, error: OSError) -> InputError:
    return InputError(
        f"the program cannot be started: {error.strerror}",
        field=f"spec.script.{field}",
        value=value,
        remedy="Name what is in the image of spec.nodes.template.image, or on the storage.",
    )
