"""The plan of a script run: only what follows from its spec and a step time that somebody measured.

Parameters, FLOPs, memory and what a save costs are the program's own affair: no figure stands here
for them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pretrain_llm.contract.config import ScriptRunConfig

from ..api.spec import ScriptSpec
from ..config import script_run_config
from .assumptions import Assumptions

_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class ScriptCost:
    """Without faults and saves."""

    step_seconds: float
    training_seconds: float
    device_hours: float  # with spares
    dollars: float
    interruptions: float  # expected


@dataclass(frozen=True)
class ScriptPlan:
    config: ScriptRunConfig
    assumptions: Assumptions
    cost: ScriptCost | None  # None: nobody said how long a step takes

    @property
    def devices(self) -> int:
        """That train."""
        return self.config.nodes.count * self.config.nodes.devices_per_node


def plan_script(
    spec: ScriptSpec, assumptions: Assumptions | None = None, step_seconds: float | None = None
) -> ScriptPlan:
    """Raises SpecError for the first rule that the spec breaks; ValueError."""
    if step_seconds is not None and not step_seconds > 0:
        raise ValueError(f"step_seconds {step_seconds}: give a positive number")
    given, config = assumptions or Assumptions(), script_run_config("plan", spec)
    cost = None if step_seconds is None else _cost(config, given, step_seconds)
    return ScriptPlan(config, given, cost)


def _cost(config: ScriptRunConfig, assumptions: Assumptions, step_seconds: float) -> ScriptCost:
    nodes, seconds = config.nodes, config.script.steps * step_seconds
    hours = seconds / _SECONDS_PER_HOUR
    training_hours = nodes.count * nodes.devices_per_node * hours
    paid_hours = (nodes.count + nodes.spares) * nodes.devices_per_node * hours
    return ScriptCost(
        step_seconds=step_seconds,
        training_seconds=seconds,
        device_hours=paid_hours,
        dollars=paid_hours * assumptions.price,
        interruptions=training_hours / assumptions.device_hours_per_interruption,
    )


def script_document(name: str, plan: ScriptPlan) -> dict[str, Any]:
    """What `-o json` prints of it; null is what cannot be known."""
    nodes, script = plan.config.nodes, plan.config.script
    return {
        "run": name,
        "script": {"command": list(script.command), "steps": script.steps},
        "nodes": asdict(nodes),
        "devices": plan.devices,
        "cost": None if plan.cost is None else asdict(plan.cost),
        "assumptions": {
            "price": plan.assumptions.price,
            "device_hours_per_interruption": plan.assumptions.device_hours_per_interruption,
        },
    }
