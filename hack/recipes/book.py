"""What a recipe says of itself, and its plan. Reads recipes/*.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretrain_operator.api.spec import RunSpec, ScriptSpec
from pretrain_operator.planner.assumptions import Assumptions
from pretrain_operator.planner.plan import RunPlan, plan_run
from pretrain_operator.planner.recipe import recipe
from pretrain_operator.planner.script_plan import ScriptPlan, plan_script

FOLDER = Path("recipes")
DEMO = "demo"  # made for one small machine, measured against nothing
_PREFIX = "recipes.pretrain.dev/"

# Order of the table's parts.
SYSTEMS = (
    "nanochat",
    "modded-nanogpt",
    "nanollama",
    "TinyLlama and MicroLlama",
    "Pythia",
    "OLMo 2",
    "SmolLM",
    "Sizes of a guide",
    "SCaLE 23x",
    "HyperPod",
    "Reference sizings",
)


@dataclass(frozen=True)
class AnyEntry:
    """One recipe. The annotations are the table's, nothing else reads them."""

    name: str
    system: str
    source: str
    measured_against: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Entry(AnyEntry):
    """Of a run that torchtitan trains."""

    plan: RunPlan


@dataclass(frozen=True)
class ScriptEntry(AnyEntry):
    """Of a program that runs as it is published: neither a dry run nor a small form is possible."""

    plan: ScriptPlan


def all_names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != DEMO)


def names(folder: Path = FOLDER) -> list[str]:
    """Of the recipes that torchtitan trains."""
    return [name for name in all_names(folder) if not is_script(body(name, folder))]


def script_names(folder: Path = FOLDER) -> list[str]:
    return [name for name in all_names(folder) if is_script(body(name, folder))]


def is_script(written: dict[str, Any]) -> bool:
    return "script" in written["spec"]


def body(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The recipe as it is written, unplanned."""
    found: dict[str, Any] = yaml.safe_load(_text(name, folder))
    return found


def entry(name: str, folder: Path = FOLDER) -> Entry:
    """Raises RecipeError or SpecError where the API server would refuse it, KeyError for a missing
    annotation, ValueError for a script."""
    written, spec = body(name, folder), recipe(_text(name, folder)).spec
    if not isinstance(spec, RunSpec):
        raise ValueError(f"{name} runs a script: there is no model to plan, shard or make small")
    assumptions = Assumptions(mfu=float(_note(written, "mfu")))
    return Entry(**_described(name, written), plan=plan_run(spec, assumptions))


def script_entry(name: str, folder: Path = FOLDER) -> ScriptEntry:
    """Raises as `entry`."""
    written, spec = body(name, folder), recipe(_text(name, folder)).spec
    assert isinstance(spec, ScriptSpec)
    seconds = float(_note(written, "step-seconds"))
    return ScriptEntry(**_described(name, written), plan=plan_script(spec, step_seconds=seconds))


def _described(name: str, written: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "system": _note(written, "system"),
        "source": _note(written, "source"),
        "measured_against": _note(written, "measured-against"),
        "body": written,
    }


def _note(written: dict[str, Any], key: str) -> str:
    found: str = written["metadata"]["annotations"][f"{_PREFIX}{key}"]
    return found


def _text(name: str, folder: Path) -> str:
    return (folder / f"{name}.yaml").read_text()


def entries(folder: Path = FOLDER) -> Sequence[Entry]:
    """In the table's order: by system, then by work."""
    found = [entry(name, folder) for name in names(folder)]
    return sorted(found, key=lambda item: (SYSTEMS.index(item.system), item.plan.compute.flops))


def script_entries(folder: Path = FOLDER) -> Sequence[ScriptEntry]:
    return [script_entry(name, folder) for name in script_names(folder)]
