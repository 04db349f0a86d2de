"""kubectl and helm as a user would call them, with deadlines and readable errors."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


class StepError(RuntimeError):
    """A step did not end as it should; the message says which, and what was seen."""


@dataclass(frozen=True)
class Kube:
    """One cluster. `kubeconfig` None means the user's current context."""

    kubectl: str
    helm: str
    kubeconfig: str | None = None

    def run(self, *arguments: str, stdin: bytes | None = None, timeout_seconds: float = 60) -> str:
        """Output of a kubectl command. Raises StepError."""
        return self._output(
            [self.kubectl, *self._flag("--kubeconfig"), *arguments], stdin, timeout_seconds
        )

    def chart(self, *arguments: str, timeout_seconds: float = 180) -> str:
        """Output of a helm command. Raises StepError."""
        return self._output(
            [self.helm, *self._flag("--kubeconfig"), *arguments], None, timeout_seconds
        )

    def get(self, *arguments: str) -> Any:
        return json.loads(self.run("get", *arguments, "-o", "json"))

    def apply(self, *manifests: dict[str, Any]) -> None:
        document = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run("apply", "-f", "-", stdin=json.dumps(document).encode())

    def raw(self, path: str) -> str:
        """A GET through the API server."""
        return self.run("get", "--raw", path)

    def _flag(self, name: str) -> list[str]:
        return [f"{name}={self.kubeconfig}"] if self.kubeconfig else []

    def _output(self, command: list[str], stdin: bytes | None, timeout_seconds: float) -> str:
        shown = " ".join([command[0].rsplit("/", 1)[-1], *command[1:]])
        try:
            done = subprocess.run(
                command, input=stdin, capture_output=True, timeout=timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise StepError(f"{shown}: no answer after {timeout_seconds:.0f} s") from error
        if done.returncode:
            raise StepError(f"{shown}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()


def wait_for(
    what: str,
    look: Callable[[], T | None],
    *,
    timeout_seconds: float,
    interval_seconds: float = 0.5,
) -> T:
    """The first answer of `look` that is not None. Raises StepError after the time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StepError(f"waited {timeout_seconds:.0f} s for {what}")
        time.sleep(interval_seconds)
