"""`pretrain plan -f recipe.yaml`: what a run needs and costs, before anything is applied.

    pretrain plan -f recipes/demo.yaml --mfu 0.42 --price 2.10
    pretrain plan -f recipe.yaml --suggest -o json

Asks no cluster. Exit code: 0, or 1 where the recipe is refused or the run would fail.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..api.spec import RunSpec, ScriptSpec
from ..planner import (
    DEVICES,
    Assumptions,
    Recipe,
    RecipeError,
    RunPlan,
    plan_run,
    plan_script,
    recipe,
)
from ..planner.document import document, fragment
from ..planner.meshes import Suggestion
from ..planner.script_plan import script_document
from ..planner.shrinking import SmallerRun
from .plan_script import script_view
from .render import amount, duration

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_GIB = 2.0**30
_DEFAULTS = Assumptions()
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("·", "yellow")}


def register(commands: Commands) -> None:
    """Adds the command; `offline` instead of `command`, since it needs no cluster."""
    one = commands.add_parser("plan", help="memory, time, cost and mesh of a recipe, offline")
    one.add_argument(
        "-f", "--filename", required=True, help="manifest of a PretrainRun; - for stdin"
    )
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    one.add_argument("--suggest", action="store_true", help="search the cheapest mesh that fits")
    one.add_argument("--device", choices=tuple(DEVICES), default=_DEFAULTS.device)
    one.add_argument(
        "--device-memory", type=float, metavar="GIB", help="default: the device's (80 for H100)"
    )
    for option, name, meaning in _NUMBERS:
        default = getattr(_DEFAULTS, name)
        shown = "from its size" if default is None else f"{default:g}"
        one.add_argument(
            option, dest=name, type=float, default=default, help=f"{meaning} ({shown})"
        )
    one.add_argument(
        "--step-seconds", type=float, metavar="S", help="of a script: how long a step takes"
    )
    one.set_defaults(offline=plan)


_NUMBERS = (
    ("--mfu", "mfu", "share of the peak that 6ND alone reaches"),
    ("--price", "price", "US dollars a device-hour"),
    ("--stall-seconds", "stall_seconds", "that a checkpoint stalls training"),
    ("--restart-seconds", "restart_seconds", "from an interruption to the next new step"),
    ("--mtbf-hours", "device_hours_per_interruption", "device-hours an interruption"),
    ("--fragmentation", "fragmentation", "share of the allocated memory that is lost"),
    ("--context", "context_gib", "GiB for the CUDA context and NCCL"),
)


def plan(options: argparse.Namespace) -> int:
    try:
        read = recipe(_text(options.filename))
        if isinstance(read.spec, ScriptSpec):
            return _plan_script(read.name, read.spec, options)
        return _plan_run(read, options)
    except (OSError, RecipeError, ValueError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 1


def _plan_run(read: Recipe, options: argparse.Namespace) -> int:
    assert isinstance(read.spec, RunSpec)
    if options.step_seconds is not None:
        raise ValueError("--step-seconds is for scripts; of a model it follows from --mfu")
    result = plan_run(read.spec, _assumptions(options), suggest=options.suggest)
    if options.output == "json":
        print(json.dumps(document(read.name, result), indent=2))
    else:
        Console().print(plan_view(read.name, result, suggest=options.suggest))
    return 1 if result.problems else 0


def _plan_script(name: str, spec: ScriptSpec, options: argparse.Namespace) -> int:
    if options.suggest:
        raise ValueError(
            "--suggest: a script spreads its model itself, so there is no mesh to find"
        )
    result = plan_script(spec, _assumptions(options), options.step_seconds)
    if options.output == "json":
        print(json.dumps(script_document(name, result), indent=2))
    else:
        Console().print(script_view(name, result))
    return 0


def _text(filename: str) -> str:
    return sys.stdin.read() if filename == "-" else Path(filename).read_text(encoding="utf-8")


def _assumptions(options: argparse.Namespace) -> Assumptions:
    numbers = {name: getattr(options, name) for _, name, _ in _NUMBERS}
    return Assumptions(device=options.device, device_memory_gib=options.device_memory, **numbers)


def plan_view(name: str, plan: RunPlan, *, suggest: bool = False) -> RenderableType:
    """The whole plan, for a terminal. Pure."""
    parts: list[RenderableType] = [_headline(name, plan), Text(), _facts(plan)]
    if plan.segments:
        parts += [Text(), _segments(plan)]
    parts += [Text(), _memory(plan), Text(), _advice(plan)]
    if suggest:
        parts += [Text(), _suggestion(plan.suggestion)]
    parts += [Text(), _assumed(plan.assumptions)]
    parts += [Text(f"\n{problem}", style="bold red") for problem in plan.problems]
    return Group(*parts)


def _headline(name: str, plan: RunPlan) -> Text:
    fits = plan.memory.fits
    line = Text(f"{name}   ", style="bold")
    line.append("fits" if fits else "does not fit", style="green" if fits else "bold red")
    nodes = plan.config.nodes
    device = plan.assumptions.device
    return line.append(f"   {nodes.count} x {nodes.devices_per_node} {device}", style="dim")


def _facts(plan: RunPlan) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, value in (*_size_rows(plan), *_time_rows(plan), *_reliability_rows(plan)):
        table.add_row(Text(label, style="dim"), value)
    return table


def _size_rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    counts, mesh, training = plan.parameters, plan.config.parallelism, plan.config.training
    yield (
        "parameters",
        f"{counts.total:,} ({counts.embedding:,} embedding, {counts.non_embedding:,} other)",
    )
    yield "tokens", f"{plan.tokens:,} = {plan.tokens / counts.total:,.1f} a parameter"
    yield (
        "mesh",
        f"replicate {mesh.data_parallel_replicate}  shard {mesh.data_parallel_shard}"
        f"  tensor {mesh.tensor_parallel}  pipeline {mesh.pipeline_parallel}"
        f"  context {mesh.context_parallel}",
    )
    yield (
        "batch",
        f"{training.global_batch_size} sequences of {training.sequence_length}"
        f" ({amount(plan.config.tokens_per_step)} tokens): {training.local_batch_size} at once"
        f" x {plan.accumulation} accumulated",
    )
    if plan.smaller:
        yield "shrinks to", ", ".join(_smaller(run) for run in plan.smaller) + " nodes"


def _smaller(run: SmallerRun) -> str:
    needs = f"{run.memory.total_bytes / _GIB:.1f} GiB a device"
    return str(run.nodes) if run.memory.fits else f"{run.nodes} (does not fit: {needs})"


def _time_rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    compute = plan.compute
    yield (
        "FLOPs",
        f"6ND {compute.flops:.4g} + attention {compute.attention_flops:.4g}"
        f" (MFU {plan.assumptions.mfu:.1%}, with attention {compute.mfu_with_attention:.1%})",
    )
    yield (
        "steps",
        f"{plan.config.training.steps:,} of {compute.step_seconds:.3g} s,"
        f" {amount(compute.tokens_per_second)} tokens/s",
    )
    yield (
        "training",
        f"{duration(compute.training_seconds)}, {compute.training_device_hours:,.1f} device-hours",
    )
    if plan.device_hours is None or plan.dollars is None:
        yield "paid", "never ends: interruptions and saves leave no progress"
        return
    yield (
        "paid",
        f"{duration(plan.reliability.wall_seconds)} with faults and saves,"
        f" {plan.device_hours:,.1f} device-hours with spares, ${plan.dollars:,.0f}",
    )


def _reliability_rows(plan: RunPlan) -> Iterator[tuple[str, str]]:
    found = plan.reliability
    yield (
        "checkpoint",
        f"{found.checkpoint_bytes / 1e9:,.1f} GB, stalls {found.stall_seconds:.1f} s;"
        f" export {found.export_bytes / 1e9:,.1f} GB",
    )
    yield (
        "interval",
        f"{found.interval_steps} steps ({duration(found.interval_seconds)});"
        f" Daly {found.daly_interval_steps} steps ({duration(found.daly_interval_seconds)})",
    )
    yield (
        "faults",
        f"one in {duration(found.mtbf_seconds)}, {found.interruptions:,.2f} expected;"
        f" goodput {found.goodput:.2%}",
    )


def _segments(plan: RunPlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("segment from step")
    for heading in ("steps", "tokens", "batch", "accumulated", "step, s", "time", "GiB a device"):
        table.add_column(heading, justify="right")
    for segment in plan.segments:
        table.add_row(
            f"{segment.from_step:,}",
            f"{segment.steps:,}",
            amount(segment.tokens),
            f"{segment.global_batch_size} x {segment.sequence_length}",
            str(segment.accumulation),
            f"{segment.compute.step_seconds:.3g}",
            duration(segment.compute.training_seconds),
            f"{segment.memory_bytes / _GIB:,.1f}",
        )
    return table


def _memory(plan: RunPlan) -> Table:
    memory, peak = plan.memory, plan.memory.peak
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(f"memory of a device, GiB (stage {memory.stage}, peak: {peak.name})")
    table.add_column("", justify="right")
    for label, size in (
        ("weights, float32", memory.weights_bytes),
        ("optimiser moments, float32", memory.optimizer_bytes),
        ("gradients, float32", peak.gradients_bytes),
        ("activations", peak.activations_bytes),
        ("logits and their gradients", peak.logits_bytes),
        ("gathered weights, unreduced gradients", peak.communication_bytes),
        ("rotary tables", memory.buffers_bytes),
        ("fragmentation, CUDA context, NCCL", memory.margin_bytes),
    ):
        table.add_row(label, f"{size / _GIB:,.2f}")
    total = f"{memory.total_bytes / _GIB:,.2f} of {memory.device_bytes / _GIB:,.0f}"
    table.add_row(Text("total", style="bold"), Text(total, style="bold"))
    return table


def _advice(plan: RunPlan) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in plan.advice:
        mark, style = _MARKS[line.passes]
        table.add_row(Text(mark, style=style), line.text)
    return table


def _suggestion(found: Suggestion | None) -> RenderableType:
    if found is None:
        return Text("no legal mesh of these devices fits; add nodes or shrink the model", "red")
    free = (found.memory.device_bytes - found.memory.total_bytes) / _GIB
    comment = (
        f"# accumulation {found.accumulation}, {free:.1f} GiB left,"
        f" {found.cost.exposed_seconds:.3g} s a step that computing does not hide"
    )
    return Text(f"{comment}\n{fragment(found)}".rstrip())


def _assumed(given: Assumptions) -> Text:
    stall = "from size" if given.stall_seconds is None else f"{given.stall_seconds:g} s"
    return Text(
        f"assumed: {given.device} {given.peak_flops / 1e12:,.0f} TFLOP/s bfloat16"
        f" ({DEVICES[given.device].source}), MFU {given.mfu:g}, ${given.price:g} a device-hour,"
        f" stall {stall}, restart {given.restart_seconds:g} s,"
        f" {given.device_hours_per_interruption:,.0f} device-hours an interruption,"
        f" fragmentation {given.fragmentation:.0%}, context {given.context_gib:g} GiB",
        style="dim",
    )
