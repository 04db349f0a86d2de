"""Every architecture against transformers' own implementation, from random weights."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pretrain_llm.hub  # noqa: F401  registers what transformers lacks
from pretrain_llm import models
from pretrain_llm.contract.config import ARCHITECTURES, ModelConfig
from pretrain_llm.training import cpu
from pretrain_llm.training.documents import document_positions, visible
from tests.published_models import PUBLISHED, Published

from .runs import EOS, family_model

LENGTH = 48
MAX_LOGITS_DIFFERENCE = 1e-5

families = pytest.mark.parametrize("family", ARCHITECTURES)


def _titan(model: ModelConfig) -> tuple[torch.nn.Module, object]:
    cpu.enable()
    spec = cpu.adapted(models.architecture(model.architecture).model_spec(model, LENGTH))
    built = spec.model.build()
    with torch.no_grad():
        built.init_weights()
    return built.eval(), spec.state_dict_adapter(spec.model, None)


def _theirs(model: ModelConfig) -> torch.nn.Module:
    config = models.architecture(model.architecture).hf_config(model, LENGTH)
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config, pad_token_id=EOS), dtype=torch.float32
    ).eval()


def _tokens() -> torch.Tensor:
    """(2, LENGTH), with an end of text in the midst of the first row."""
    tokens = torch.randint(1, 256, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    tokens[0, LENGTH // 3] = EOS
    return tokens


@torch.no_grad()
def _logits(ours: torch.nn.Module, theirs: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = _tokens()
    positions = document_positions(tokens, EOS)
    masks = ours.get_attention_masks(positions=positions)
    expected = theirs(
        input_ids=tokens,
        position_ids=positions,
        attention_mask=visible(positions),
        use_cache=False,
    ).logits
    return ours(tokens, positions=positions, attention_masks=masks), expected


def _perturb(module: torch.nn.Module) -> None:
    """So that no norm is one, no bias zero, and a swap of two of them is seen."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)


@families
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(family: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = family_model(family, tie_embeddings=tied, num_layers=5)
    ours, adapter = _titan(model)
    _perturb(ours)
    theirs = _theirs(model)
    weights = adapter.to_hf(ours.state_dict())
    loaded = theirs.load_state_dict(weights, strict=False)
    assert loaded.unexpected_keys == []
    assert loaded.missing_keys == (["lm_head.weight"] if tied else [])
    found, expected = _logits(ours, theirs)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() <= MAX_LOGITS_DIFFERENCE


@pytest.mark.parametrize("published", PUBLISHED, ids=[row.name for row in PUBLISHED])
def test_model_of_published_shapes_has_the_published_parameters(published: Published) -> None:
    cpu.enable()
    family = models.architecture(published.architecture)
    with torch.device("meta"):
        model = family.model_spec(published.model, LENGTH).model.build()
    assert sum(parameter.numel() for parameter in model.parameters()) == published.parameters


@torch.no_grad()
def test_gpt2_without_biases_is_transformers_with_zeros() -> None:
    torch.manual_seed(0)
    model = family_model("gpt2", biases=False)
    ours, adapter = _titan(model)
    _perturb(ours)
    theirs = _theirs(model)
    weights = adapter.to_hf(ours.state_dict())
    theirs.load_state_dict({**weights, "lm_head.weight": weights["transformer.wte.weight"]})
    found, expected = _logits(ours, theirs)
    assert (found - expected).abs().max() <= MAX_LOGITS_DIFFERENCE
    again = adapter.from_hf(weights)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.state_dict().items())
    weights["transformer.ln_f.bias"][0] = 1
    with pytest.raises(ValueError, match=r"ln_f.bias is not zero"):
        adapter.from_hf(weights)


@families
def test_model_counts_six_flops_a_parameter_in_matmuls_and_attention(family: str) -> None:
    model, _ = _titan(family_model(family, tie_embeddings=False, num_layers=3))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    found = model.config.get_nparams_and_flops(model, LENGTH)
    tables = 256 * 64 + (model.config.pos_embeddings.num_embeddings * 64 if family == "gpt2" else 0)
    tables += 2 * 256 * 32 if family == "nanochat_2026" else 0
    assert found == (parameters, 6 * (parameters - tables) + 12 * 3 * 64 * LENGTH)


@families
@pytest.mark.parametrize("tied", [True, False])
def test_weights_of_transformers_are_read_as_they_are(family: str, tied: bool) -> None:
    torch.manual_seed(0)
    model = family_model(family, tie_embeddings=tied)
    theirs = _theirs(model)
    _perturb(theirs)
    ours, adapter = _titan(model)
    weights = dict(theirs.state_dict())
    if tied:
        weights.pop("lm_head.weight")
    ours.load_state_dict(adapter.from_hf(dict(weights)))
    found, expected = _logits(ours, theirs)
    assert (found - expected).abs().max() <= MAX_LOGITS_DIFFERENCE
    again = adapter.to_hf(ours.state_dict())
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
