"""What a recipe says of itself, and its plan. Reads recipes/*.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pretrain_operator.planner.assumptions import Assumptions
from pretrain_operator.planner.plan import RunPlan, plan_run
from pretrain_operator.planner.recipe import recipe

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
class Entry:
    """One recipe. The annotations are the table's, nothing else reads them."""

    name: str
    system: str
    source: str
    measured_against: str
    body: dict[str, Any]
    plan: RunPlan


def names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml") if path.stem != DEMO)


def body(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """The recipe as it is written, unplanned."""
    found: dict[str, Any] = yaml.safe_load(_text(name, folder))
    return found


def entry(name: str, folder: Path = FOLDER) -> Entry:
    """Raises RecipeError or SpecError where the API server would refuse it, KeyError for a missing
    annotation."""
    written = body(name, folder)
    notes = written["metadata"]["annotations"]
    assumptions = Assumptions(mfu=float(notes[f"{_PREFIX}mfu"]))
    return Entry(
        name=name,
        system=notes[f"{_PREFIX}system"],
        source=notes[f"{_PREFIX}source"],
        measured_against=notes[f"{_PREFIX}measured-against"],
        body=written,
        plan=plan_run(recipe(_text(name, folder)).spec, assumptions),
    )


def _text(name: str, folder: Path) -> str:
    return (folder / f"{name}.yaml").read_text()


def entries(folder: Path = FOLDER) -> Sequence[Entry]:
    """In the table's order: by system, then by work."""
    found = [entry(name, folder) for name in names(folder)]
    return sorted(found, key=lambda item: (SYSTEMS.index(item.system), item.plan.compute.flops))
