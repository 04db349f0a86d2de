"""`spec.export.soup`: its rules in Python, and its ingredients as the pod reads them. Pure.

The rules are those of `api.soup_rules` by the same names.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_llm.contract import config as contract

from .api.spec import Export, RunSpec
from .spec_error import SpecError, repeated


def ingredient_configs(export: Export) -> tuple[contract.IngredientConfig, ...]:
    entries = export.soup.ingredients if export.soup else ()
    return tuple(contract.IngredientConfig(e.weight, e.run, e.step) for e in entries)


def soup_violations(spec: RunSpec) -> Iterator[SpecError]:
    entries = spec.export.soup.ingredients if spec.export.soup else ()
    field, places = "spec.export.soup.ingredients", [(entry.run, entry.step) for entry in entries]
    if (place := repeated(places)) is not None:
        found = " ".join(str(part) for part in place if part is not None) or "this run's newest"
        remedy = "is there twice; name each checkpoint once, and give it a weight"
        yield SpecError("soup-ingredients-once", field, found, remedy)
    lost = [step for run, step in places if run is None and step and not _is_kept(spec, step)]
    if lost:
        remedy = "is not kept; add it to checkpoint.keepSteps, or leave step out for the last"
        yield SpecError("soup-steps-kept", field, lost[0], remedy)


def _is_kept(spec: RunSpec, step: int) -> bool:
    """Whether the checkpoint of this step is there when training has ended."""
    checkpoint = spec.checkpoint
    every = checkpoint.keep_every
    is_multiple = every is not None and step % every == 0
    return step in checkpoint.keep_steps or is_multiple or step == spec.training.steps
