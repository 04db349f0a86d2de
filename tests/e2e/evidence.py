"""What a cluster had to say when a test failed: in its report, before the cluster is gone."""

from __future__ import annotations

from collections.abc import Iterator

from hack.demo import place
from hack.demo.kube import StepError

_LOG_LINES = 400  # of each container
_RECENT_EVENTS = 40


def gathered(where: place.Place) -> str:
    return "\n".join(f"--- {title}\n{text}" for title, text in _parts(where))


def _parts(where: place.Place) -> Iterator[tuple[str, str]]:
    yield "runs", _said(where, "get", "pretrainruns", "-A", "-o", "yaml")
    yield "pods", _said(where, "get", "pods", "-A", "-o", "wide")
    events = _said(where, "get", "events", "-A", "--sort-by=.metadata.creationTimestamp")
    yield "events", "\n".join(events.splitlines()[-_RECENT_EVENTS:])
    names = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{'\\n'}{end}"
    for selector in ("app.kubernetes.io/name=pretrain-operator", "pretrain.dev/run"):
        for line in _said(where, "get", "pods", "-A", "-l", selector, "-o", names).splitlines():
            yield line, _log(where, *line.split())


def _log(where: place.Place, namespace: str, pod: str) -> str:
    return _said(where, "logs", "-n", namespace, pod, f"--tail={_LOG_LINES}", "--timestamps")


def _said(where: place.Place, *command: str) -> str:
    try:
        return where.kube.run(*command)
    except StepError as error:
        return str(error)
