"""GPT-NeoX, as Pythia uses it: attention and feed-forward side by side, a quarter of each head
rotated, LayerNorm, GELU, biases everywhere but at the output layer.

Sources: Black et al. 2022 (GPT-NeoX-20B), section 2; Biderman et al. 2023 (Pythia), section 2.1;
its initialisation ("small" inward, "wang" outward) from Pythia's own configurations. Not here:
anything of the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchtitan.models.common import CosSinRoPE, Embedding, Linear
from torchtitan.models.common.attention import AttentionMasksType
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.protocols.model_spec import ModelSpec

from ..contract.config import ModelConfig
from .parts import hf_config as hf
from .parts.adapter import RenamingAdapter
from .parts.biased import (
    BiasedBlock,
    BiasedModel,
    Init,
    attention,
    bias_of_zeros,
    feed_forward,
    layer_norm,
)
from .parts.decoder_spec import decoder_spec

ROTARY_SHARE = 4  # one part in four of a head's width

_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


class PartialRoPE(CosSinRoPE):
    """Rotates the first `dim` of a head's width and lets the rest through."""

    @dataclass(kw_only=True, slots=True)
    class Config(CosSinRoPE.Config):
        pass

    def forward(
        self, query: Tensor, key: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        dim = self.config.dim
        rotated = super().forward(query[..., :dim], key[..., :dim], positions)
        return (
            torch.cat((rotated[0], query[..., dim:]), dim=-1),
            torch.cat((rotated[1], key[..., dim:]), dim=-1),
        )


class GptNeoXBlock(BiasedBlock):
    @dataclass(kw_only=True, slots=True)
    class Config(BiasedBlock.Config):
        pass

    def forward(
        self,
        x: Tensor,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        attended = self.attention(self.attention_norm(x), attention_masks, positions)
        return x + attended + self.feed_forward(self.ffn_norm(x))


class GptNeoXAdapter(RenamingAdapter):
    """Hugging Face keeps a head's query, key and value rows together, in one matrix."""

    names: Mapping[str, str] = {
        "tok_embeddings.weight": "gpt_neox.embed_in.weight",
        **{
            f"layers.{{}}.{ours}.{kind}": f"gpt_neox.layers.{{}}.{theirs}.{kind}"
            for ours, theirs in {
                "attention_norm": "input_layernorm",
                "ffn_norm": "post_attention_layernorm",
                "attention.qkv_linear.wqkv": "attention.query_key_value",
                "attention.wo": "attention.dense",
                "feed_forward.w1": "mlp.dense_h_to_4h",
                "feed_forward.w2": "mlp.dense_4h_to_h",
            }.items()
            for kind in ("weight", "bias")
        },
        "norm.weight": "gpt_neox.final_layer_norm.weight",
        "norm.bias": "gpt_neox.final_layer_norm.bias",
        "lm_head.weight": "lm_head.weight",
    }

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        joined = dict(state_dict)
        for name, query in state_dict.items():
            if ".wq." in name:
                parts = [joined.pop(name.replace(".wq.", f".{part}.")) for part in _PARTS]
                heads = [part.unflatten(0, (self._heads, -1)) for part in parts]
                whole = torch.stack(heads, dim=1).reshape(-1, *query.shape[1:])
                joined[name.replace(".wq.", ".wqkv.")] = whole
        return super().to_hf(joined)

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """Also of a Pythia checkpoint as published, whose output layer is embed_out."""
        theirs = {name.replace("embed_out", "lm_head"): w for name, w in hf_state_dict.items()}
        ours = super().from_hf(theirs)
        for name in [name for name in ours if ".wqkv." in name]:
            heads = ours.pop(name).unflatten(0, (self._heads, 3, -1))
            for number, part in enumerate(_PARTS):
                ours[name.replace(".wqkv.", f".{part}.")] = heads[:, number].flatten(0, 1)
        return ours

    @property
    def _heads(self) -> int:
        return int(self.model_config.layers[0].attention.n_heads)


_PARTS = ("wq", "wk", "wv")  # torchtitan's names in a checkpoint


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    return decoder_spec(model, _decoder(model, sequence_length), GptNeoXAdapter)


def _decoder(model: ModelConfig, sequence_length: int) -> BiasedModel.Config:
    small = {"weight": _small_init(model)}
    return BiasedModel.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        enable_weight_tying=model.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size,
            embedding_dim=model.dim,
            param_init=_TIED_INIT if model.tie_embeddings else small,
        ),
        norm=layer_norm(model),
        lm_head=Linear.Config(
            in_features=model.dim, out_features=model.vocab_size, param_init=small
        ),
        layers=[_layer(model, sequence_length) for _ in range(model.num_layers)],
    )


def _layer(model: ModelConfig, sequence_length: int) -> GptNeoXBlock.Config:
    inward, outward = bias_of_zeros(_small_init(model)), bias_of_zeros(_wang_init(model))
    rope = PartialRoPE.Config(
        dim=model.dim // model.num_heads // ROTARY_SHARE,
        max_seq_len=sequence_length,
        theta=model.rope_theta,
        scaling="none",
    )
    return GptNeoXBlock.Config(
        attention_norm=layer_norm(model),
        ffn_norm=layer_norm(model),
        attention=attention(model, rope, inward, outward),
        feed_forward=feed_forward(model, "none", inward, outward),
    )


def _small_init(model: ModelConfig) -> Any:
    """Source: Nguyen and Salazar 2019 (Transformers without Tears), section 2.2."""
    return partial(nn.init.normal_, std=(2 / (5 * model.dim)) ** 0.5)


def _wang_init(model: ModelConfig) -> Any:
    """Source: Wang and Komatsuzaki 2021 (GPT-J)."""
    return partial(nn.init.normal_, std=2 / model.num_layers / model.dim**0.5)


_NAMES: hf.Names = {**hf.NAMES, "layer_norm_eps": "norm_eps"}


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart."""
    rotary_share = 1 / ROTARY_SHARE
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        **hf.shapes(model, _NAMES),
        **hf.rope(model, partial_rotary_factor=rotary_share),
        "rotary_pct": rotary_share,
        "rotary_emb_base": model.rope_theta,
        "max_position_embeddings": sequence_length,
        "hidden_act": "gelu",
        "attention_bias": True,
        "use_parallel_residual": True,
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    return hf.model(
        config,
        _NAMES,
        architecture="gpt_neox",
        num_kv_heads=config["num_attention_heads"],
        rope_theta=hf.rope_theta(config, older_name="rotary_emb_base"),
    )
