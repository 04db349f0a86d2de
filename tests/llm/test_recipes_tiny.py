"""The small form of every recipe really trains: the loss falls, a stop loses nothing, it exports.

Recipes of one family and optimizer often have one small form; each form is trained once.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
import yaml

from hack.recipes import book
from hack.recipes.tiny import STEPS, tiny
from pretrain_llm.contract.config import RunConfig, digest
from pretrain_llm.contract.curriculum import segments
from pretrain_llm.data import build as data_stage
from pretrain_llm.export.work import export
from pretrain_operator.planner.plan import plan_run
from pretrain_operator.planner.recipe import recipe

from .worlds import all_losses, trained, trained_in_rounds

pytestmark = [
    pytest.mark.usefixtures("warm_workers"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]


RATES = ("learning_rate", "adamw_learning_rate", "embedding_learning_rate", "output_learning_rate")


def tiny_config(name: str) -> RunConfig:
    spec = recipe(yaml.safe_dump(tiny(book.body(name)))).spec
    return replace(plan_run(spec).config, run="tiny")


def forms() -> dict[str, RunConfig]:
    """By the first recipe that has it."""
    found: dict[str, tuple[str, RunConfig]] = {}
    for name in book.names():
        run = tiny_config(name)
        found.setdefault(digest(without_figures(run)), (name, run))
    return dict(found.values())


def without_figures(run: RunConfig) -> RunConfig:
    """Forms that differ in rates and in shares of the mix alone are the same."""
    training = run.training
    rates = {name: 1.0 for name in RATES if getattr(training.optimizer, name) is not None}
    return replace(
        run,
        data=replace(
            run.data, sources=tuple(replace(source, weight=None) for source in run.data.sources)
        ),
        training=replace(
            training,
            optimizer=replace(training.optimizer, **rates),
            schedule=replace(training.schedule, steps=None),
            curriculum=tuple(replace(segment, weights=()) for segment in training.curriculum),
        ),
    )


FORMS = forms()


def write_corpus(run: RunConfig, volume: Path) -> None:
    """The beginnings of topics of Python's reference, dealt out to the sources."""
    texts = [topics[name][:2000] for name in sorted(topics)][:80]
    for number, source in enumerate(run.data.sources):
        path = volume / source.path.removeprefix(f"{run.volume}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = texts[number :: len(run.data.sources)]
        form = as_chat if source.is_chat else as_text
        path.write_text("".join(json.dumps(form(text)) + "\n" for text in rows))


def as_text(text: str) -> dict[str, Any]:
    return {"text": text}


def as_chat(text: str) -> dict[str, Any]:
    title, _, below = text.partition("\n")
    asked, said = (("user", title), ("assistant", below))
    return {"messages": [{"role": role, "content": content} for role, content in (asked, said)]}


@pytest.mark.parametrize("name", FORMS)
def test_tiny_form_learns_resumes_exactly_and_exports(name: str, tmp_path: Path) -> None:
    run = replace(FORMS[name], volume=str(tmp_path))
    write_corpus(run, tmp_path)
    data_stage.build(run)
    whole = trained_in_rounds(run)
    losses = all_losses(whole)
    assert len(whole) == len(segments(run))
    shutil.rmtree(run.layout.checkpoint(STEPS))
    resumed = trained(run)
    saved = {step for each in whole for step in each.saved_steps}
    assert resumed.restored_step == max(saved - {STEPS}) >= STEPS // 2
    assert resumed.losses == {
        step: losses[step] for step in range(resumed.restored_step + 1, STEPS + 1)
    }
    assert losses[STEPS] < 0.9 * losses[1]
    result = export(run)
    assert result.step == STEPS
    assert result.metrics["logitsMaxAbsDiff"] < 1e-4
