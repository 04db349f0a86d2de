"""What `pretrain plan` shows of a script run: what its spec says, and no invented figure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..planner import ScriptPlan
from .render import duration


def script_view(name: str, plan: ScriptPlan) -> RenderableType:
    nodes, device = plan.config.nodes, plan.assumptions.device
    headline = Text(f"{name}   ", style="bold").append("a script", style="yellow")
    headline.append(f"   {nodes.count} x {nodes.devices_per_node} {device}", style="dim")
    table = Table.grid(padding=(0, 2))
    for label, value in _rows(plan):
        table.add_row(Text(label, style="dim"), value)
    return Group(headline, Text(), table)


def _rows(plan: ScriptPlan) -> Iterator[tuple[str, str]]:
    script, policy, cost = plan.config.script, plan.config.checkpoint, plan.cost
    yield "command", shlex.join(script.command)
    yield "steps", f"{script.steps:,}"
    every = "auto" if policy.interval is None else f"every {policy.interval:,} steps"
    yield "checkpoints", f"{every}, as far as the program asks for them"
    yield "not known", "parameters, FLOPs, memory, what a save costs: they are the program's"
    if cost is None:
        yield "time, cost", "not known; give --step-seconds, as measured"
        return
    yield "training", f"{duration(cost.training_seconds)} of {cost.step_seconds:.3g} s a step"
    hours = f"{cost.device_hours:,.1f} device-hours with spares, ${cost.dollars:,.0f}"
    yield "paid", f"{hours}; without faults and saves"
    yield "faults", f"{cost.interruptions:,.2g} expected"
