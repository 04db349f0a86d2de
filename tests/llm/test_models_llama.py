"""Architectures: the registry, and the shapes in torchtitan's and in Hugging Face's words."""

from __future__ import annotations

import pkgutil
from dataclasses import replace

import pytest
from transformers import AutoConfig

import pretrain_llm.hub  # noqa: F401  registers what transformers lacks
from pretrain_llm import models
from pretrain_llm.contract.config import ARCHITECTURES, LEARNED_POSITIONS, ModelConfig
from pretrain_llm.errors import InputError
from pretrain_llm.training import cpu

from .runs import family_model

SHAPES = ModelConfig("llama", 96, 3, 6, 2, 160, 512, 500000.0, 1e-6, False)


def test_architectures_of_the_contract_are_the_modules_of_the_folder() -> None:
    assert sorted(ARCHITECTURES) == sorted(_modules())


def test_architecture_unknown_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"mamba.*Use one of: llama") as caught:
        models.architecture("mamba")
    assert caught.value.field == "spec.model.architecture"


def _modules() -> list[str]:
    """Packages are what several architectures share."""
    return [module.name for module in pkgutil.iter_modules(models.__path__) if not module.ispkg]


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_hf_config_and_back_is_the_same_model(family: str, tied: bool) -> None:
    module = models.architecture(family)
    shapes = family_model(family, tie_embeddings=tied)
    is_rotated = family not in LEARNED_POSITIONS
    other = replace(shapes, dim=96, num_layers=3, norm_eps=1e-6)
    for model in (shapes, replace(other, rope_theta=5e5) if is_rotated else other):
        config = module.hf_config(model, 128)
        assert module.model_of(config) == model
        read_by_transformers = AutoConfig.for_model(**config).to_dict()
        assert module.model_of(read_by_transformers) == model
        positions = "max_position_embeddings" if is_rotated else "n_positions"
        assert read_by_transformers[positions] == (128 if is_rotated else 64)


def test_model_spec_has_the_shapes() -> None:
    cpu.enable()
    config = models.architecture("llama").model_spec(SHAPES, 128).model
    assert (config.dim, config.vocab_size, len(config.layers)) == (96, 512, 3)
    assert config.enable_weight_tying is False
    assert config.norm.eps == 1e-6
    layer = config.layers[2]
    assert (layer.attention.n_heads, layer.attention.n_kv_heads) == (6, 2)
    assert layer.feed_forward.w1.out_features == 160
    assert (layer.attention.rope.theta, layer.attention.rope.dim) == (500000.0, 16)
    assert config.max_seq_len == 128
