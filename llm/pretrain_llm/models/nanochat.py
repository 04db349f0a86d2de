"""nanochat, as first published: rotary embeddings, norms without weights, also of queries, keys and
the embedded tokens, ReLU squared, logits capped by a tanh; no biases.

Source: Karpathy 2025 (nanochat), October's gpt.py; the tables of value embeddings and the scalars
that it has got since are not here: transformers' NanoChatForCausalLM, which this exports to, has
none. Initialisation: Yang et al. 2023 (A Spectral Condition for Feature Learning); what writes to
the residual stream and the output layer start at zero. Not here: anything of the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import spmd_types as spmd
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchtitan.models.common import CosSinRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config
from torchtitan.models.common.decoder import TransformerBlock
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    rowwise_config,
    set_decoder_sharding_config,
)
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.module import Module
from torchtitan.protocols.sharding import ShardingConfig

from ..contract.config import ModelConfig
from .parts import hf_config as hf
from .parts.adapter import RenamingAdapter
from .parts.decoder_spec import decoder_spec
from .parts.embedded import EmbeddedDecoder
from .parts.sharding import set_block_sharding

LOGIT_CAP = 15.0

Init = dict[str, Any]

_EMBEDDING_INIT: Init = {"weight": partial(nn.init.normal_, std=1.0)}
_ZERO_INIT: Init = {"weight": nn.init.zeros_}
_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


class ClockwiseRoPE(CosSinRoPE):
    """nanochat turns the other way round, and so do the weights of its published checkpoints."""

    @dataclass(kw_only=True, slots=True)
    class Config(CosSinRoPE.Config):
        pass

    def _precompute_cache(self) -> Tensor:
        cosines, sines = super()._precompute_cache().chunk(2, dim=-1)
        return torch.cat((cosines, -sines), dim=-1)


class SquaredReluFeedForward(Module):
    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        w1: Linear.Config
        w2: Linear.Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w1 = config.w1.build()
        self.w2 = config.w2.build()

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(functional.relu(self.w1(x)).square())


class CappedLinear(Linear):
    @dataclass(kw_only=True, slots=True)
    class Config(Linear.Config):
        pass

    def forward(self, input: Tensor) -> Tensor:
        return LOGIT_CAP * torch.tanh(super().forward(input) / LOGIT_CAP)


class NanochatBlock(Llama3TransformerBlock):
    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        feed_forward: SquaredReluFeedForward.Config


class NanochatModel(EmbeddedDecoder):
    """Queries and keys are normalised before the rotation, which leaves their norm as it is."""

    @dataclass(kw_only=True, slots=True)
    class Config(EmbeddedDecoder.Config):
        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            EmbeddedDecoder.Config.update_from_config(self, config=config, **kwargs)
            in_sequence = config.parallelism.enable_sequence_parallel
            set_decoder_sharding_config(self, enable_sp=in_sequence)
            for block in self.layers:
                set_block_sharding(block, rowwise_config(output_sp=in_sequence), in_sequence)
                block.attention.qk_norm.sharding_config = _heads_norm_sharding()

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            return Llama3Model.Config.get_nparams_and_flops(self, model, seq_len)

    def embedded(self, tokens: Tensor, positions: Tensor | None) -> Tensor:  # noqa: ARG002
        return functional.rms_norm(
            self.tok_embeddings(tokens), (self.config.dim,), eps=self.config.norm.eps
        )


def _heads_norm_sharding() -> ShardingConfig:
    heads = dense_activation_placement(tp=spmd.S(2))
    return ShardingConfig(
        in_src_shardings={"input": heads},
        in_dst_shardings={"input": heads},
        out_src_shardings=heads,
        out_dst_shardings=heads,
    )


class NanochatAdapter(RenamingAdapter):
    names: Mapping[str, str] = {
        "tok_embeddings.weight": "model.embed_tokens.weight",
        "layers.{}.attention.qkv_linear.wq.weight": "model.layers.{}.self_attn.q_proj.weight",
        "layers.{}.attention.qkv_linear.wk.weight": "model.layers.{}.self_attn.k_proj.weight",
        "layers.{}.attention.qkv_linear.wv.weight": "model.layers.{}.self_attn.v_proj.weight",
        "layers.{}.attention.wo.weight": "model.layers.{}.self_attn.o_proj.weight",
        "layers.{}.feed_forward.w1.weight": "model.layers.{}.mlp.fc1.weight",
        "layers.{}.feed_forward.w2.weight": "model.layers.{}.mlp.fc2.weight",
        "lm_head.weight": "lm_head.weight",
    }


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    return decoder_spec(model, _decoder(model, sequence_length), NanochatAdapter)


def _decoder(model: ModelConfig, sequence_length: int) -> NanochatModel.Config:
    """nanochat unties its embedding; tied, its scale does not matter to the norm behind it."""
    tied_output = {"weight": partial(nn.init.normal_, std=model.dim**-0.5)}
    return NanochatModel.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        enable_weight_tying=model.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size,
            embedding_dim=model.dim,
            param_init=_TIED_INIT if model.tie_embeddings else _EMBEDDING_INIT,
        ),
        norm=rms_norm(model, model.dim),
        lm_head=CappedLinear.Config(
            in_features=model.dim,
            out_features=model.vocab_size,
            param_init=tied_output if model.tie_embeddings else _ZERO_INIT,
        ),
        layers=[_layer(model, sequence_length) for _ in range(model.num_layers)],
    )


def _layer(model: ModelConfig, sequence_length: int) -> NanochatBlock.Config:
    width = model.dim // model.num_heads
    attention = make_gqa_config(
        dim=model.dim,
        n_heads=model.num_heads,
        n_kv_heads=model.num_kv_heads,
        wqkv_param_init=_spectral_init(model.dim, model.dim),
        wo_param_init=_ZERO_INIT,
        inner_attention=get_attention_config("flex"),
        fuse_qkv=model.num_kv_heads > 1,  # parts of one group share storage: no save
        rope=ClockwiseRoPE.Config(dim=width, max_seq_len=sequence_length, theta=model.rope_theta),
    )
    attention.qk_norm = rms_norm(model, width)
    hidden = model.ffn_hidden_dim
    return NanochatBlock.Config(
        attention_norm=rms_norm(model, model.dim),
        ffn_norm=rms_norm(model, model.dim),
        attention=attention,
        feed_forward=SquaredReluFeedForward.Config(
            w1=Linear.Config(
                in_features=model.dim,
                out_features=hidden,
                param_init=_spectral_init(model.dim, hidden),
            ),
            w2=Linear.Config(in_features=hidden, out_features=model.dim, param_init=_ZERO_INIT),
        ),
    )


def rms_norm(model: ModelConfig, width: int) -> RMSNorm.Config:
    return RMSNorm.Config(normalized_shape=width, eps=model.norm_eps, elementwise_affine=False)


def _spectral_init(width_in: int, width_out: int) -> Init:
    std = min(1.0, (width_out / width_in) ** 0.5) / width_in**0.5
    return {"weight": partial(nn.init.normal_, std=std)}


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart."""
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        **hf.shapes(model, hf.GROUPED_RMS_NAMES),
        **hf.rope(model),
        "max_position_embeddings": sequence_length,
        "final_logit_softcapping": LOGIT_CAP,
        "hidden_act": "relu2",
        "attention_bias": False,
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    theta = hf.rope_theta(config)
    return hf.model(config, hf.GROUPED_RMS_NAMES, architecture="nanochat", rope_theta=theta)
