"""The rules that hold whatever trains the run. Pure. In CEL: `api.rules`."""

from __future__ import annotations

from collections.abc import Iterator

from .api.recovery import Recovery
from .api.rules import NAME_PATTERN
from .api.spec import AnySpec, Checkpoint, Nodes
from .spec_error import SpecError


def common_violations(name: str, spec: AnySpec) -> Iterator[SpecError]:
    yield from _name_violations(name)
    yield from _nodes_violations(spec.nodes)
    yield from _checkpoint_violations(spec.checkpoint)
    yield from _recovery_violations(spec.recovery)


def _name_violations(name: str) -> Iterator[SpecError]:
    if not NAME_PATTERN.fullmatch(name):
        yield SpecError(
            "name-fits-children",
            "metadata.name",
            f"{name} ({len(name)} characters)",
            "so that the names of its children fit, choose at most 40 lower-case letters, digits"
            " and dashes, a letter first",
        )


def _nodes_violations(nodes: Nodes) -> Iterator[SpecError]:
    if nodes.spares > nodes.count:
        remedy = f"exceeds nodes.count {nodes.count}; lower it"
        yield SpecError("spares-within-count", "spec.nodes.spares", nodes.spares, remedy)
    if nodes.min is not None and nodes.min > nodes.count:
        remedy = f"exceeds nodes.count {nodes.count}; lower it, or leave it out"
        yield SpecError("min-nodes-within-count", "spec.nodes.min", nodes.min, remedy)


def _checkpoint_violations(checkpoint: Checkpoint) -> Iterator[SpecError]:
    memory, interval = checkpoint.memory, checkpoint.interval
    shortest = checkpoint.min_interval if interval == "auto" else interval
    if memory is not None and memory.interval >= shortest:
        name = "minInterval" if interval == "auto" else "interval"
        remedy = (
            f"is not less than checkpoint.{name} {shortest}; lower it, or leave"
            " checkpoint.memory out"
        )
        field = "spec.checkpoint.memory.interval"
        yield SpecError("memory-more-often", field, memory.interval, remedy)
    if checkpoint.min_interval > checkpoint.max_interval:
        remedy = f"exceeds maxInterval {checkpoint.max_interval}; lower it, or raise the other"
        field = "spec.checkpoint.minInterval"
        yield SpecError("interval-bounds-ordered", field, checkpoint.min_interval, remedy)


def _recovery_violations(recovery: Recovery) -> Iterator[SpecError]:
    if recovery.stragglers.action == "Replace" and not recovery.exclude_node_after:
        remedy = "set it to 1 or more, or stragglers.action to Report"
        yield SpecError(
            "straggler-replacement-excludes", "spec.recovery.excludeNodeAfter", 0, remedy
        )
