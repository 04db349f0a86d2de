"""Llama: RMSNorm, grouped-query attention with rotary embeddings, SwiGLU; no biases.

Shapes come from the spec, never from a preset, through torchtitan's own building blocks. The
initialisation is that of torchtitan's models/llama3. Not here: anything of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.param_init import depth_scaled_std, skip_param_init
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock
from torchtitan.models.llama3.state_dict_adapter import Llama3StateDictAdapter
from torchtitan.protocols.model_spec import ModelSpec

from ..contract.config import ModelConfig
from .parts import hf_config as hf
from .parts.decoder_spec import decoder_spec

Init = dict[str, Callable[..., Any]]

_STD = 0.02
_LINEAR_INIT: Init = {"weight": partial(nn.init.trunc_normal_, std=_STD)}
_NORM_INIT: Init = {"weight": nn.init.ones_}
_EMBEDDING_INIT: Init = {"weight": partial(nn.init.normal_, std=1.0)}
_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    return decoder_spec(model, _decoder(model, sequence_length), Llama3StateDictAdapter)


def _decoder(model: ModelConfig, sequence_length: int) -> Llama3Model.Config:
    return Llama3Model.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        enable_weight_tying=model.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size,
            embedding_dim=model.dim,
            param_init=_TIED_INIT if model.tie_embeddings else _EMBEDDING_INIT,
        ),
        norm=_norm(model),
        lm_head=Linear.Config(
            in_features=model.dim,
            out_features=model.vocab_size,
            param_init=_output_init(model.dim),
        ),
        layers=[_layer(model, number, sequence_length) for number in range(model.num_layers)],
    )


def _layer(model: ModelConfig, number: int, sequence_length: int) -> Llama3TransformerBlock.Config:
    return Llama3TransformerBlock.Config(
        attention_norm=_norm(model),
        ffn_norm=_norm(model),
        attention=make_gqa_config(
            dim=model.dim,
            n_heads=model.num_heads,
            n_kv_heads=model.num_kv_heads,
            wqkv_param_init=_LINEAR_INIT,
            wo_param_init=_depth_init(number),
            inner_attention=get_attention_config("flex"),
            fuse_qkv=model.num_kv_heads > 1,  # parts of one group share storage: no save
            rope=ComplexRoPE.Config(
                dim=model.dim // model.num_heads,
                max_seq_len=sequence_length,
                theta=model.rope_theta,
                scaling="none",
            ),
        ),
        feed_forward=make_ffn_config(
            dim=model.dim,
            hidden_dim=model.ffn_hidden_dim,
            w1_param_init=_LINEAR_INIT,
            w2w3_param_init=_depth_init(number),
        ),
    )


def _norm(model: ModelConfig) -> RMSNorm.Config:
    return RMSNorm.Config(normalized_shape=model.dim, eps=model.norm_eps, param_init=_NORM_INIT)


def _depth_init(layer: int) -> Init:
    return {"weight": partial(nn.init.trunc_normal_, std=depth_scaled_std(_STD, layer))}


def _output_init(dim: int) -> Init:
    std = dim**-0.5
    return {"weight": partial(nn.init.trunc_normal_, std=std, a=-3 * std, b=3 * std)}


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **hf.shapes(model, hf.GROUPED_RMS_NAMES),
        **hf.rope(model),
        "rope_theta": model.rope_theta,
        "head_dim": model.dim // model.num_heads,
        "max_position_embeddings": sequence_length,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    theta = hf.rope_theta(config)
    return hf.model(config, hf.GROUPED_RMS_NAMES, architecture="llama", rope_theta=theta)
