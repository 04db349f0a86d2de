"""What a run will need and cost, before anything is applied. Pure; no torch, no cluster, no clock.

    plan_run(spec, Assumptions(mfu=0.45), suggest=True) -> RunPlan

recipe        YAML -> spec, refused as the API server would
families/     one file an architecture: weights, activations
parameters    exact counts                   memory       bytes on the fullest device
sweep         a grid of runs from one recipe
script_plan   what can be said of a script run
compute       FLOPs and time                 reliability  checkpoints, interruptions, goodput
meshes        the cheapest mesh that fits    advice       should you pre-train at all?

Formulas, sources and how they were validated: docs/planner.md.
"""

from .assumptions import DEVICES, Assumptions
from .plan import RunPlan, plan_run
from .recipe import Recipe, RecipeError, recipe
from .script_plan import ScriptPlan, plan_script

__all__ = [
    "DEVICES",
    "Assumptions",
    "Recipe",
    "RecipeError",
    "RunPlan",
    "ScriptPlan",
    "plan_run",
    "plan_script",
    "recipe",
]
