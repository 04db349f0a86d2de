"""nanochat of 2026: what the tests of all families, which are of short sequences, do not see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import pretrain_llm.hub  # noqa: F401  registers what transformers lacks
from pretrain_llm.contract.config import ModelConfig
from pretrain_llm.models import nanochat_2026
from pretrain_llm.training import cpu
from pretrain_llm.training.documents import document_positions, visible

from .runs import EOS, family_model

LENGTH = 640
WINDOW = 256
MODEL = family_model("nanochat_2026", num_layers=6, tie_embeddings=False)


def test_windows_are_short_short_short_long_and_the_last_is_long() -> None:
    d12 = replace(MODEL, num_layers=12)
    windows = [nanochat_2026.window(d12, 2048, block) for block in range(12)]
    assert windows == [512, 512, 512, None] * 3
    last_is_short = replace(MODEL, num_layers=6)
    windows = [nanochat_2026.window(last_is_short, 2048, block) for block in range(6)]
    assert windows == [512, 512, 512, None, 512, None]
    assert nanochat_2026.window(d12, 100, 0) is None  # seen whole


def test_value_embeddings_are_in_every_other_block_and_in_the_last() -> None:
    for layers, expected in ((4, [1, 3]), (5, [0, 2, 4])):
        model = replace(MODEL, num_layers=layers)
        found = [n for n in range(layers) if nanochat_2026.has_value_embeddings(model, n)]
        assert found == expected


def _both(model: ModelConfig) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Ours and transformers', of the same random weights."""
    cpu.enable()
    spec = cpu.adapted(nanochat_2026.model_spec(model, LENGTH))
    ours = spec.model.build()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        ours.init_weights()
        for parameter in ours.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    config = AutoConfig.for_model(**nanochat_2026.hf_config(model, LENGTH), pad_token_id=EOS)
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    theirs.load_state_dict(spec.state_dict_adapter(spec.model, None).to_hf(ours.state_dict()))
    return ours.eval(), theirs.eval()


@pytest.fixture(scope="module")
def both() -> tuple[torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    return _both(MODEL)


def _tokens(rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(1, 256, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def _logits(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    positions = document_positions(tokens, EOS)
    masks = model.get_attention_masks(positions=positions)
    return model(tokens, positions=positions, attention_masks=masks)


@torch.no_grad()
def test_windowed_logits_of_packed_documents_are_those_of_transformers(
    both: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    ours, theirs = both
    tokens = _tokens()
    tokens[0, 300] = EOS
    positions = document_positions(tokens, EOS)
    expected = theirs(tokens, attention_mask=visible(positions), position_ids=positions).logits
    assert (_logits(ours, tokens) - expected).abs().max() <= 1e-5


def test_short_block_sees_its_window_and_no_token_before_it() -> None:
    """The smear reaches one token further, and the last block is long."""
    torch.manual_seed(0)
    ours, _ = _both(replace(MODEL, num_layers=2))
    for block in ours.layers.values():
        block.attention.inner_attention.window_size = (WINDOW, 0)
    ours.layers["1"].attention.wo.weight.data.zero_()
    tokens, last = _tokens(rows=1), LENGTH - 1
    for distance, is_seen in ((WINDOW + 1, True), (WINDOW + 2, False)):
        other = tokens.clone()
        other[0, last - distance] = 1 + tokens[0, last - distance] % 255
        difference = _logits(ours, other)[0, last] - _logits(ours, tokens)[0, last]
        assert bool(difference.abs().max() > 0) == is_seen


def test_first_token_of_a_document_is_not_smeared(
    both: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    ours, _ = both
    tokens = _tokens(rows=1, length=32)
    tokens[0, 15] = EOS
    alone = _logits(ours, tokens[:, 16:])
    assert (_logits(ours, tokens)[:, 16:] - alone).abs().max() <= 1e-5


@torch.no_grad()
def test_generation_is_the_likeliest_token_of_all_before_it_also_behind_padding(
    both: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    _, theirs = both
    prompt = expected = _tokens(rows=1, length=8)
    for _ in range(4):
        likeliest = theirs(expected).logits[:, -1:].argmax(-1)
        expected = torch.cat((expected, likeliest), dim=1)
    padded = torch.nn.functional.pad(prompt, (3, 0), value=EOS)
    mask = (torch.arange(11) >= 3).long().unsqueeze(0)
    for tokens, seen in ((prompt, torch.ones_like(prompt)), (padded, mask)):
        found = theirs.generate(tokens, attention_mask=seen, max_new_tokens=4, do_sample=False)
        assert found[:, -12:].tolist() == expected.tolist()


@torch.no_grad()
def test_post_training_gets_logits_from_hidden_states_and_the_cap_of_the_config(
    both: tuple[torch.nn.Module, torch.nn.Module],
) -> None:
    """As TRL's loss does, which computes the output layer in pieces."""
    _, theirs = both
    tokens, cap = _tokens(length=32), theirs.config.final_logit_softcapping
    hidden = theirs.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    logits = cap * torch.tanh(theirs.get_output_embeddings()(hidden) / cap)
    assert torch.equal(logits, theirs(tokens, logits_to_keep=0).logits)


def test_masks_of_an_accelerator_are_one_for_each_kind_of_block() -> None:
    """FlexAttention's, which a CPU builds but cannot train with."""
    spec = nanochat_2026.model_spec(MODEL, LENGTH)
    with torch.device("meta"):
        model = spec.model.build()
    positions = document_positions(_tokens(), EOS)
    with torch.compiler.set_stance("force_eager"):  # compiling takes longer than all else here
        masks = model.get_attention_masks(positions)
    assert set(masks) == {"all", "window"}
    rows, columns = torch.tensor(600), torch.arange(LENGTH)
    for name, first in (("all", 0), ("window", 600 - WINDOW)):
        seen = masks[name].mask_mod(torch.tensor(0), torch.tensor(0), rows, columns)
        assert columns[seen].tolist() == list(range(first, 601))
