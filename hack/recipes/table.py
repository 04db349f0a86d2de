"""recipes/README.md from the recipes and their plans. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from .book import SYSTEMS, Entry, ScriptEntry

_HEAD = """\
# Recipes

One file, one published run: `kubectl apply -f recipes/<name>.yaml` on a cluster of the stated
size. Adapt where the text is (`data.sources`), the tokenizer's folder and the volume; change a size
and it needs no code. `pretrain plan -f recipes/<name>.yaml` says memory, time and cost before
anything is applied.

GPU-hours, hours and dollars are **plans, not measurements**: 6ND at the share of the peak that the
recipe's annotation `recipes.pretrain.dev/mfu` expects of H100s, at $2.50 a GPU-hour, with faults,
saves and spares. A script's are the time that its authors measured. The last columns say what the
run is to be measured against, and whose numbers the recipe has.

`make recipes` writes this table. `make recipes-dry-run` makes one step of a recipe at its true
mesh, on CPU; `dry-run.json` is the record of all. docs/recipes.md says what is checked.
"""
_COLUMNS = ("recipe", "parameters", "tokens", "nodes × GPUs", "mesh", "GPU-hours", "hours", "cost",
            "measured against", "source")  # fmt: skip


def readme(entries: Sequence[Entry | ScriptEntry]) -> str:
    """The entries' order within a system stays."""
    ordered = sorted(entries, key=lambda item: SYSTEMS.index(item.system))
    parts = [
        _part(system, list(members))
        for system, members in groupby(ordered, key=lambda item: item.system)
    ]
    return "\n".join([_HEAD, *parts])


def _part(system: str, members: Iterable[Entry | ScriptEntry]) -> str:
    lines = [f"## {system}", "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    return "\n".join([*lines, *(_line(_cells(member)) for member in members), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(item: Entry | ScriptEntry) -> Iterator[str]:
    return _run_cells(item) if isinstance(item, Entry) else _script_cells(item)


def _script_cells(item: ScriptEntry) -> Iterator[str]:
    """What only the program knows is left open; the time is what its authors measured."""
    nodes, cost = item.plan.config.nodes, item.plan.cost
    assert cost is not None
    yield from (f"[{item.name}]({item.name}.yaml)", "–", "–")
    yield f"{nodes.count} × {nodes.devices_per_node}"
    yield "script"
    yield f"{cost.device_hours:,.1f}"
    yield f"{cost.training_seconds / 3600:,.2f}"
    yield f"${cost.dollars:,.2f}"
    yield item.measured_against
    yield item.source


def _run_cells(item: Entry) -> Iterator[str]:
    plan, nodes = item.plan, item.plan.config.nodes
    yield f"[{item.name}]({item.name}.yaml)"
    yield _short(plan.parameters.total)
    yield _short(plan.tokens)
    yield f"{nodes.count} × {nodes.devices_per_node}"
    yield _mesh(item)
    yield "–" if plan.device_hours is None else f"{plan.device_hours:,.1f}"
    seconds = plan.reliability.wall_seconds
    yield "–" if seconds is None else f"{seconds / 3600:,.1f}"
    yield "–" if plan.dollars is None else f"${plan.dollars:,.0f}"
    yield item.measured_against
    yield item.source


def _mesh(item: Entry) -> str:
    mesh = item.plan.config.parallelism
    degrees = {
        "HSDP": mesh.data_parallel_replicate,
        "FSDP": mesh.data_parallel_shard,
        "TP": mesh.tensor_parallel,
        "PP": mesh.pipeline_parallel,
        "CP": mesh.context_parallel,
    }
    return " ".join(f"{name} {degree}" for name, degree in degrees.items() if degree > 1)


def _short(value: float) -> str:
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:g}"
