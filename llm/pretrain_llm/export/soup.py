"""A soup: the model is the mean of several checkpoints, of this run and of others on the volume.

Source: Wortsman et al. 2022 (arXiv 2203.05482); OLMo 2 takes the mean of runs whose second stage
differs in the order of the data. Every checkpoint is found, compared and verified here, before
`mean` reads a weight. Those of other runs are read only: damage is told, not set aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import artifacts
from ..checkpoints import folders
from ..checkpoints.selection import Identity
from ..contract.config import IngredientConfig, RunConfig
from ..contract.curriculum import segment_of
from ..contract.layout import Layout
from ..contract.manifests import CheckpointManifest
from ..errors import InputError

FIELD = "spec.export.soup.ingredients"


@dataclass(frozen=True)
class Ingredient:
    run: str
    folder: Path
    manifest: CheckpointManifest
    share: float  # all sum to 1

    def __str__(self) -> str:
        return f"{self.run} step {self.manifest.step} ({self.share:.4g})"


def ingredients(run: RunConfig, ours: Identity, newest: CheckpointManifest) -> list[Ingredient]:
    """Each verified, of one model and tokenizer; the newest alone where the spec has no soup.

    `newest`: of this run, verified. Raises InputError.
    """
    if not run.export.soup:
        return [_found(run, IngredientConfig(1.0), newest, 1.0)]
    total = sum(entry.weight for entry in run.export.soup)
    found = [_found(run, entry, newest, entry.weight / total) for entry in run.export.soup]
    seen = [ingredient.folder for ingredient in found]
    for ingredient in found:
        _check_model(run, ingredient, ours)
        if seen.count(ingredient.folder) > 1:
            raise _refusal(ingredient, "is there twice", "Name each checkpoint once.")
    for ingredient in found:
        if ingredient.manifest is not newest:
            _check_files(ingredient)
    return found


def _found(
    run: RunConfig, entry: IngredientConfig, newest: CheckpointManifest, share: float
) -> Ingredient:
    name = entry.run or run.run
    root = Path(Layout(run.volume, name).checkpoints)
    if name == run.run and entry.step is None:
        manifest: CheckpointManifest | None = newest
    elif entry.step is None:
        manifest = next((item.manifest for item in folders.scan(root) if item.manifest), None)
    else:
        manifest = folders.found(root, entry.step).manifest
    if manifest is None:
        step = "no finished checkpoint" if entry.step is None else "no such finished checkpoint"
        raise InputError(
            f"{root} has {step}",
            field=FIELD,
            value=name if entry.step is None else f"{name} step {entry.step}",
            remedy=_remedy(root),
        )
    return Ingredient(name, folders.step_folder(root, manifest.step), manifest, share)


def _remedy(root: Path) -> str:
    steps = [item.step for item in folders.scan(root) if item.manifest]
    have = f"It has {', '.join(map(str, steps))}. " if steps else ""
    return f"{have}Let that run finish, then change this spec; or name another checkpoint."


def _check_model(run: RunConfig, ingredient: Ingredient, ours: Identity) -> None:
    manifest = ingredient.manifest
    comparisons = (
        ("model", manifest.model_fingerprint, ours.model_fingerprint),
        ("tokenizer", manifest.tokenizer_fingerprint, ours.tokenizer_fingerprint),
    )
    for name, theirs, wanted in comparisons:
        if theirs != wanted:
            remedy = f"Name checkpoints of this run's {name} only."
            raise _refusal(ingredient, f"is of another {name}, {theirs[:12]}", remedy)
    if ingredient.run != run.run:
        return
    theta, last = (
        segment_of(run, step).run.model.rope_theta for step in (manifest.step, run.training.steps)
    )
    if theta != last:
        message = f"was trained with ropeTheta {theta:g}, the last one with {last:g}"
        raise _refusal(ingredient, message, "Name steps of the curriculum's last rotation only.")


def _check_files(ingredient: Ingredient) -> None:
    problems = artifacts.mismatches(ingredient.folder, ingredient.manifest.files)
    if problems:
        remedy = "Restore it from a copy, or name another checkpoint."
        raise _refusal(ingredient, f"is damaged: {'; '.join(problems[:3])}", remedy)


def _refusal(ingredient: Ingredient, message: str, remedy: str) -> InputError:
    where = f"{ingredient.run} step {ingredient.manifest.step}"
    return InputError(f"{where} {message}", field=FIELD, value=where, remedy=remedy)
