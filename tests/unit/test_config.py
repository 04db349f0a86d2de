"""The rules in Python, on the rows that the integration tests put through the API server."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig
from pretrain_operator.api.curriculum_rules import CURRICULUM
from pretrain_operator.api.family_rules import FAMILIES
from pretrain_operator.api.parse import run_from_object
from pretrain_operator.api.rules import IDENTITY, LATER_STAGES, MESH, SHAPES
from pretrain_operator.api.script_rules import SCRIPT
from pretrain_operator.api.soup_rules import SOUP
from pretrain_operator.api.transition_rules import TRANSITIONS
from pretrain_operator.config import run_config, violations
from pretrain_operator.spec_error import SpecError

from .rule_rows import EDITS, ROWS, Row
from .runs import demo_run


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_spec_that_breaks_a_rule_is_refused_by_that_rule_alone(row: Row):
    run = run_from_object(row.body(row.bad))
    assert run.spec is not None
    assert {error.rule for error in violations(run.name, run.spec)} == {row.rule}
    with pytest.raises(SpecError, match=r"^(spec|metadata)\.\S+ .+: .+"):
        run_config(run)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.rule)
def test_spec_next_to_a_rule_is_accepted(row: Row):
    run = run_from_object(row.body(row.good))
    assert run.spec is not None
    assert list(violations(run.name, run.spec)) == []


def test_rows_cover_every_rule():
    assert {row.rule for row in ROWS} == {
        rule.name
        for rule in (
            *SHAPES,
            *FAMILIES,
            *MESH,
            *CURRICULUM,
            *SOUP,
            *LATER_STAGES,
            *IDENTITY,
            *SCRIPT,
        )
    }
    assert {edit.rule for edit in EDITS} == {rule.name for rule in TRANSITIONS}


def test_config_of_the_demo_resolves_every_default():
    config = run_config(demo_run(model__numKVHeads=None))
    assert config.model.num_kv_heads == 4
    assert config.training.local_batch_size == 8
    assert config.parallelism.data_parallel_shard == 2
    assert config.nodes.device == "cpu"
    assert config.data.sources[0].path == "/workspace/corpus/python-doc.jsonl"
    assert codec.from_json(RunConfig, codec.to_json(config)) == config


def test_config_rounds_tokens_up_to_whole_steps():
    run = demo_run(training__steps=None, training__tokens=16 * 256 * 10 + 1)
    assert run_config(run).training.steps == 11


@pytest.mark.parametrize("path", ["s3://bucket/a.parquet", "/mnt/a.jsonl"])
def test_config_keeps_urls_and_absolute_paths(path: str):
    run = demo_run(data__sources=[{"name": "a", "path": path}])
    assert run_config(run).data.sources[0].path == path


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__architecture": "mamba"}, ("spec.model.architecture 'mamba'", "'llama'")),
        ({"model__dim": "wide"}, ("spec.model.dim 'wide'", "docs/api.md")),
        ({"nodes": None}, ("spec.nodes: Field required",)),
        ({"training__sequenceLength": -1}, ("spec.training.sequenceLength -1", "8")),
    ],
)
def test_spec_of_another_form_is_told_with_field_value_and_remedy(changes, words):
    run = demo_run(**changes)
    assert run.spec is None
    assert run.spec_error is not None
    for word in words:
        assert word in run.spec_error
