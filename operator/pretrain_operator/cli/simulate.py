"""`pretrain simulate`: a run under faults, simulated with the operator's own decisions, offline.

    pretrain simulate llama3
    pretrain simulate scout --seed 2 --load-seconds 20 -o json
    pretrain simulate -f recipes/demo.yaml --trace faults.csv

Exit code: 0, or 1 where the recipe, the trace or a number is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner import recipe
from ..simulate import Fault, Result, Scenario, scenarios
from ..simulate.durations import COUNTS, SOURCES, names
from ..simulate.result import document
from ..simulate.sensitivity import (
    MAX_HORIZON_SECONDS,
    Sensitivity,
    sensitivities,
    shortened,
    simulated,
)
from ..simulate.trace import trace
from .render import duration

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_BUILT_IN = {"llama3": scenarios.llama3, "scout": scenarios.scout}
_UNSET = {"checkpoint_steps": "auto", "memory_steps": "none"}


def register(commands: Commands) -> None:
    """Adds the command; `offline` instead of `command`, since it needs no cluster."""
    one = commands.add_parser("simulate", help="a run under faults, simulated, offline")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("scenario", nargs="?", choices=tuple(_BUILT_IN), help="a published run")
    what.add_argument("-f", "--filename", help="manifest of a PretrainRun; - for stdin")
    one.add_argument("--trace", help="CSV of faults: time_hours,class,node (default: drawn)")
    one.add_argument("--seed", type=int, default=1, help="of the drawn faults (1)")
    one.add_argument(
        "--sensitivity",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="each assumption halved and doubled (default: yes)",
    )
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    for name in names():
        kind = int if name in COUNTS else float
        option = f"--{name.replace('_', '-')}"
        one.add_argument(option, type=kind, help=SOURCES[name][0])
    one.set_defaults(offline=simulate)


def simulate(options: argparse.Namespace) -> int:
    try:
        scenario = _scenario(options)
        faults = _faults(options, scenario)
    except (OSError, ValueError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 1
    result = simulated(scenario, faults)
    base = result
    if options.sensitivity and shortened(scenario).horizon_seconds < result.wall_seconds:
        base = simulated(shortened(scenario), faults)
    varied = sensitivities(scenario, faults) if options.sensitivity else ()
    if options.output == "json":
        print(json.dumps(json_document(scenario, result, base, varied), indent=2))
    else:
        Console().print(view(scenario, result, base, varied))
    return 0


def _scenario(options: argparse.Namespace) -> Scenario:
    if options.filename is None:
        found = _BUILT_IN[options.scenario]()
    else:
        found = scenarios.of_recipe(recipe(_text(options.filename)))
    given = {name: value for name in names() if (value := getattr(options, name)) is not None}
    return replace(
        found,
        durations=replace(found.durations, **given),
        sources={**found.sources, **dict.fromkeys(given, "given on the command line")},
    )


def _faults(options: argparse.Namespace, scenario: Scenario) -> tuple[Fault, ...]:
    if options.trace is None:
        return scenario.drawn(options.seed)
    return trace(_text(options.trace), scenario.spec.nodes.count)


def _text(filename: str) -> str:
    return sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")


def json_document(
    scenario: Scenario, result: Result, base: Result, varied: Sequence[Sensitivity]
) -> dict[str, Any]:
    """What `-o json` prints. Keys are stable; new ones may come."""
    return {
        "scenario": scenario.name,
        "title": scenario.title,
        **document(result),
        "published": list(scenario.published),
        "remarks": list(scenario.remarks),
        "assumptions": {
            name: {"value": getattr(scenario.durations, name), "source": scenario.source(name)}
            for name in names()
        },
        "sensitivity": {
            "wallSeconds": base.wall_seconds,
            "ettr": base.ettr,
            "ettrHalvedAndDoubled": {v.name: [v.halved.ettr, v.doubled.ettr] for v in varied},
        }
        if varied
        else None,
    }


def view(
    scenario: Scenario, result: Result, base: Result, varied: Sequence[Sensitivity]
) -> RenderableType:
    """The whole result, for a terminal. Pure."""
    parts: list[RenderableType] = [
        Text(f"simulation   {scenario.title}", style="bold"),
        Text(),
        _facts(scenario, result),
        Text(),
        _assumptions(scenario, varied),
    ]
    if varied:
        parts.append(Text(_sensitivity_note(base), style="dim"))
    parts += [Text(remark, style="dim") for remark in scenario.remarks]
    return Group(*parts)


def _facts(scenario: Scenario, result: Result) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in (*_outcome_rows(scenario, result), *_fault_rows(result)):
        table.add_row(Text(label, style="dim"), value)
    return table


def _outcome_rows(scenario: Scenario, result: Result) -> Iterator[tuple[str, str]]:
    yield "ETTR", f"{result.ettr:.2%} (simulated)"
    yield from (("published", line) for line in scenario.published)
    end = "all steps made" if result.finished else "cut off"
    yield (
        "wall time",
        f"{result.wall_minutes:,.0f} min = {duration(result.wall_seconds)} (simulated), {end}",
    )
    yield "steps", f"{result.steps:,} kept, {result.steps_lost:,} run again"
    yield "checkpoints", f"every {result.interval_steps} steps"
    for cause, seconds in result.badput_seconds.items():
        if seconds:
            share = seconds / result.wall_seconds
            yield f"badput {cause}", f"{duration(seconds)}, {share:.2%}"


def _fault_rows(result: Result) -> Iterator[tuple[str, str]]:
    classes = ", ".join(f"{name} {count}" for name, count in result.incident_classes().items())
    yield (
        "faults",
        f"{result.faults} of the trace hit, {len(result.incidents)} incidents: {classes}",
    )
    phases = ", ".join(
        f"{name.removesuffix('_seconds').replace('_', ' ')} {duration(seconds)}"
        for name, seconds in result.median_phases().items()
    )
    yield "median phases", phases
    yield "stops", f"{len(result.stops)} that a person had to answer"
    if result.stops:
        yield "", result.stops[0]


def _assumptions(scenario: Scenario, varied: Sequence[Sensitivity]) -> Table:
    by_name = {entry.name: entry for entry in varied}
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("assumed", "value", "ETTR halved", "doubled", "source"):
        table.add_column(title, justify="left" if title in ("assumed", "source") else "right")
    used = scenario.durations.used()
    for name in sorted(used, key=lambda n: -by_name[n].spread if n in by_name else 0):
        value, entry = getattr(scenario.durations, name), by_name.get(name)
        table.add_row(
            name,
            _UNSET[name] if value is None else f"{value:,.4g}",
            f"{entry.halved.ettr:.2%}" if entry else "",
            f"{entry.doubled.ettr:.2%}" if entry else "",
            f"{SOURCES[name][0]}: {scenario.source(name)}",
        )
    return table


def _sensitivity_note(base: Result) -> str:
    limit = f"at most {MAX_HORIZON_SECONDS / 86_400:.0f} days"
    return (
        f"Halved and doubled one at a time, over the first {duration(base.wall_seconds)} ({limit});"
        f" unchanged the ETTR is {base.ettr:.2%} there."
    )
