"""A run object as a terminal shows it: (object, time) -> renderable. Nothing is asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import goodput
from ..api.status import Condition, IncidentStatus, RunStatus, StageTime, TrainingStatus
from ..conditions import PENDING, SUCCEEDED, condition
from ..observed import KubernetesObject
from ..times import epoch_seconds

_NONE = "–"
_MAX_INCIDENTS = 5  # newest; `kubectl get -o yaml` has the rest
_STYLES = {"True": "green", "False": "bold red", "Unknown": "yellow"}


def view(run: KubernetesObject, now: float | None = None) -> RenderableType:
    """The whole picture: state, stages, progress, incidents, and what is wrong.

    `now` is in seconds since the epoch; None: the clock's.
    """
    now = time.time() if now is None else now
    status = run_status(run)
    parts: list[RenderableType] = [_headline(run, status), Text(), _stages(run, status, now)]
    parts += [Text(), *_progress(status, now)]
    if status.incidents:
        parts += [Text(), *_incidents(status.incidents)]
    parts += _troubles(status)
    return Group(*parts)


def run_status(run: KubernetesObject) -> RunStatus:
    return RunStatus.model_validate(run.get("status") or {})


def summary(status: RunStatus) -> Condition | None:
    """None before the operator's first pass."""
    return condition(status, SUCCEEDED)


def run_state(run: KubernetesObject) -> str:
    """The state in a word."""
    found = summary(run_status(run))
    return found.reason if found else PENDING


def duration(seconds: float | None) -> str:
    """3.2s, 1m 05s, 2h 03m, 4d 07h."""
    if seconds is None:
        return _NONE
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h {minutes:02d}m"
    return f"{hours // 24}d {hours % 24:02d}h"


def amount(number: float | None) -> str:
    """1,234 as it is; larger ones as 12.3k, 4.5M, 6.7B, 8.9T."""
    if number is None:
        return _NONE
    if number < 10_000:
        return f"{number:,.0f}"
    for unit in ("k", "M", "B"):
        number /= 1000
        if number < 1000:
            return f"{number:.1f}{unit}"
    return f"{number / 1000:.1f}T"


def _headline(run: KubernetesObject, status: RunStatus) -> Text:
    metadata, found = run["metadata"], summary(status)
    state = found.reason if found else PENDING
    line = Text(f"{metadata['name']} ", style="bold")
    line.append(f"in {metadata['namespace']}   ", style="dim")
    line.append(state, style=_STYLES[found.status] if found else "yellow")
    if status.attempt > 1:
        line.append(f"   attempt {status.attempt}", style="dim")
    return line


def _stages(run: KubernetesObject, status: RunStatus, now: float) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column()
    table.add_column(justify="right")
    times = {(item.stage, item.name): item for item in status.stages}
    done = {(artifact.stage, artifact.name) for artifact in status.artifacts}
    for stage in _wanted_stages(run.get("spec", {})):
        taken = times.get(stage)
        mark = _mark(stage in done, taken)
        name = f"{stage[0]} {stage[1]}" if stage[1] else stage[0]
        table.add_row(mark, name, duration(_elapsed(taken, now)))
    return table


def _wanted_stages(spec: KubernetesObject) -> Iterator[tuple[str, str | None]]:
    if spec.get("script"):
        yield "Training", None
        return
    yield from (("Data", None), ("Training", None), ("Export", None))
    yield from (("PostTraining", stage["name"]) for stage in spec.get("postTraining", ()))
    if spec.get("serving"):
        yield "Serving", None


def _mark(done: bool, taken: StageTime | None) -> Text:
    if done or (taken is not None and taken.finished_at):
        return Text("✓", style="green")
    return Text("▸", style="yellow") if taken else Text("·", style="dim")


def _elapsed(taken: StageTime | None, now: float) -> float | None:
    if taken is None:
        return None
    end = epoch_seconds(taken.finished_at) if taken.finished_at else now
    return max(0.0, end - epoch_seconds(taken.started_at))


def _nodes(training: TrainingStatus) -> str:
    wanted = training.wanted_nodes
    return f"{training.nodes}/{wanted}" if wanted else str(training.nodes)


def _progress(status: RunStatus, now: float) -> Iterator[RenderableType]:
    training = status.training
    if training is not None and training.total_steps:
        bar = Table.grid(padding=(0, 1))
        share = training.step / training.total_steps
        bar.add_row(
            f"step {training.step}/{training.total_steps}",
            ProgressBar(total=training.total_steps, completed=training.step, width=30),
            f"{share:.0%}",
        )
        yield bar
        loss = _NONE if training.loss is None else f"{training.loss:.4f}"
        mfu = "" if training.mfu is None else f"   MFU {training.mfu:.0%}"
        yield Text(
            f"loss {loss}   tokens {amount(training.tokens)}   "
            f"tokens/s {amount(training.tokens_per_second)}   nodes {_nodes(training)}{mfu}"
        )
        for slow in training.stragglers:
            words = f"rank {slow.rank} is slow: {slow.slowdown:g} times the median"
            yield Text(f"{words} (pod {slow.pod}, node {slow.node})", style="yellow")
    yield from _time(status, now)
    latest = status.checkpoints.latest
    saved = (
        f"step {latest.step}, {duration(now - epoch_seconds(latest.time))} ago" if latest else _NONE
    )
    memory = status.checkpoints.memory
    in_memory = f"   in memory: step {memory.step}" if memory else ""
    yield Text(f"restarts {status.budgets.total}   checkpoint {saved}{in_memory}")
    if memory and memory.problem:
        yield Text(f"in memory: {memory.problem}", style="yellow")
    for bad in status.checkpoints.quarantined:
        yield Text(f"checkpoint of step {bad.step} was moved away: {bad.reason}", style="yellow")
    for entry in status.excluded_nodes:
        text = f"node {entry.name} is excluded until {entry.until}: {entry.reason}"
        yield Text(text, style="yellow")
    if status.serving is not None and status.serving.url:
        ready = f"{status.serving.ready_replicas} ready"
        yield Text(f"serving {status.serving.url} ({ready})")


def _time(status: RunStatus, now: float) -> Iterator[RenderableType]:
    """Goodput, and where the rest of the time went, most first."""
    training = goodput.current(status, now)
    if training is None or training.goodput is None:
        return
    lost = sorted(training.badput_seconds.items(), key=lambda item: -item[1])
    causes = "   ".join(f"{cause} {duration(seconds)}" for cause, seconds in lost)
    line = Text(f"goodput {training.goodput:.1%}")
    yield line.append(f"   {causes}", style="dim")


def _incidents(incidents: Sequence[IncidentStatus]) -> Iterator[RenderableType]:
    """The phases as a table, then the causes, which are whole sentences."""
    newest = sorted(incidents, key=lambda item: item.time)[-_MAX_INCIDENTS:]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("incident", no_wrap=True)
    for name in ("detect", "reschedule", "restore", "first step", "steps lost"):
        table.add_column(name, justify="right")
    table.add_column("restored from")
    for incident in newest:
        table.add_row(
            f"{incident.time[11:19]} {incident.fault_class}",
            duration(incident.detect_seconds),
            duration(incident.reschedule_seconds),
            duration(incident.restore_seconds),
            duration(incident.first_step_seconds),
            _NONE if incident.steps_lost is None else str(incident.steps_lost),
            incident.restored_from or _NONE,
        )
    yield table
    for incident in newest:
        echoes = f" ({incident.echoes} echoes)" if incident.echoes else ""
        yield Text(f"{incident.time[11:19]} {incident.cause}{echoes}", style="dim")


def _troubles(status: RunStatus) -> Iterator[RenderableType]:
    """The summary's words unless all is well, and those of every condition that is False."""
    told: set[str] = set()
    for found in sorted(status.conditions, key=lambda item: item.type != SUCCEEDED):
        is_open = found.type == SUCCEEDED and found.status == "Unknown"
        if (found.status == "False" or is_open) and found.message and found.message not in told:
            told.add(found.message)
            line = Text(f"\n{found.reason}: ", style=_STYLES[found.status])
            yield line.append(found.message, style="default")


def json_view(run: KubernetesObject) -> dict[str, Any]:
    """For `-o json`: the state in a word, then the status as the API has it."""
    return {
        "name": run["metadata"]["name"],
        "namespace": run["metadata"]["namespace"],
        "state": run_state(run),
        "status": run.get("status") or {},
    }
