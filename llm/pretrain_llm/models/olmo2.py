"""OLMo 2: Llama's parts with the norms behind attention and feed-forward, and queries and keys
normalised as a whole, over all heads.

Source: OLMo et al. 2025 (2 OLMo 2 Furious), sections 3.2 and 3.3; one normal distribution of
0.02, cut at three deviations, initialises every matrix. Not here: anything of the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import spmd_types as spmd
from torch import Tensor, nn
from torchtitan.models.common import CosSinRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.common.attention import AttentionMasksType, GQAttention
from torchtitan.models.common.config_utils import (
    get_attention_config,
    make_ffn_config,
    make_gqa_config,
)
from torchtitan.models.common.decoder_sharding import (
    dense_activation_placement,
    dense_param_placement,
)
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3.model import Llama3Model, Llama3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.sharding import ShardingConfig

from ..contract.config import ModelConfig
from .parts import hf_config as hf
from .parts.adapter import RenamingAdapter
from .parts.decoder_spec import decoder_spec

Init = dict[str, Callable[..., Any]]

_STD = 0.02
_INIT: Init = {"weight": partial(nn.init.trunc_normal_, std=_STD, a=-3 * _STD, b=3 * _STD)}
_NORM_INIT: Init = {"weight": nn.init.ones_}
_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


class HeadsNorm(RMSNorm):
    """RMSNorm over all heads of a token: (batch, length, heads, width of a head), both ways."""

    @dataclass(kw_only=True, slots=True)
    class Config(RMSNorm.Config):
        pass

    def forward(self, heads: Tensor) -> Tensor:
        return super().forward(heads.flatten(2)).view_as(heads)


class Olmo2Attention(GQAttention):
    """Grouped-query attention whose query and key norms see all heads of a token at once."""

    @dataclass(kw_only=True, slots=True)
    class Config(GQAttention.Config):
        query_norm: HeadsNorm.Config
        key_norm: HeadsNorm.Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.q_norm = config.query_norm.build()
        self.k_norm = config.key_norm.build()

    def forward(
        self,
        x_BLD: Tensor,  # noqa: N803  torchtitan binds these names
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        q, k, v = self.qkv_linear(x_BLD)  # each (batch, length, heads, width of a head)
        q, k = self.rope(self.q_norm(q), self.k_norm(k), positions)
        out = self.inner_attention(
            q,
            k,
            v,
            attention_masks=attention_masks,
            scale=self.scaling,
            enable_gqa=self.enable_gqa,
        )
        return self.wo(out.contiguous().flatten(2))


class Olmo2Block(Llama3TransformerBlock):
    """Norms at the end of each branch, so that the residual stream is never rescaled."""

    @dataclass(kw_only=True, slots=True)
    class Config(Llama3TransformerBlock.Config):
        pass

    def forward(
        self,
        x: Tensor,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        h = x + self.attention_norm(self.attention(x, attention_masks, positions))
        return h + self.ffn_norm(self.feed_forward(h))


class Olmo2Model(Llama3Model):
    @dataclass(kw_only=True, slots=True)
    class Config(Llama3Model.Config):
        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            Llama3Model.Config.update_from_config(self, config=config, **kwargs)
            for layer in self.layers:
                layer.attention.query_norm.sharding_config = _whole_norm_sharding()
                layer.attention.key_norm.sharding_config = _whole_norm_sharding()


def _whole_norm_sharding() -> ShardingConfig:
    """Tensor parallelism has a part of the heads on each rank, the norm needs them all: gathered
    before, cut again after."""
    heads = dense_activation_placement(tp=spmd.S(2))
    whole = dense_activation_placement(tp=spmd.R)
    return ShardingConfig(
        state_shardings={"weight": dense_param_placement(tp=spmd.R)},
        in_src_shardings={"heads": heads},
        in_dst_shardings={"heads": whole},
        out_src_shardings=whole,
        out_dst_shardings=heads,
    )


class Olmo2Adapter(RenamingAdapter):
    names: Mapping[str, str] = {
        "tok_embeddings.weight": "model.embed_tokens.weight",
        "layers.{}.attention.qkv_linear.wq.weight": "model.layers.{}.self_attn.q_proj.weight",
        "layers.{}.attention.qkv_linear.wk.weight": "model.layers.{}.self_attn.k_proj.weight",
        "layers.{}.attention.qkv_linear.wv.weight": "model.layers.{}.self_attn.v_proj.weight",
        "layers.{}.attention.q_norm.weight": "model.layers.{}.self_attn.q_norm.weight",
        "layers.{}.attention.k_norm.weight": "model.layers.{}.self_attn.k_norm.weight",
        "layers.{}.attention.wo.weight": "model.layers.{}.self_attn.o_proj.weight",
        "layers.{}.attention_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
        "layers.{}.feed_forward.w1.weight": "model.layers.{}.mlp.gate_proj.weight",
        "layers.{}.feed_forward.w3.weight": "model.layers.{}.mlp.up_proj.weight",
        "layers.{}.feed_forward.w2.weight": "model.layers.{}.mlp.down_proj.weight",
        "layers.{}.ffn_norm.weight": "model.layers.{}.post_feedforward_layernorm.weight",
        "norm.weight": "model.norm.weight",
        "lm_head.weight": "lm_head.weight",
    }


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    return decoder_spec(model, _decoder(model, sequence_length), Olmo2Adapter)


def _decoder(model: ModelConfig, sequence_length: int) -> Olmo2Model.Config:
    return Olmo2Model.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        enable_weight_tying=model.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size,
            embedding_dim=model.dim,
            param_init=_TIED_INIT if model.tie_embeddings else _INIT,
        ),
        norm=_norm(model),
        lm_head=Linear.Config(
            in_features=model.dim, out_features=model.vocab_size, param_init=_INIT
        ),
        layers=[_layer(model, sequence_length) for _ in range(model.num_layers)],
    )


def _layer(model: ModelConfig, sequence_length: int) -> Olmo2Block.Config:
    return Olmo2Block.Config(
        attention_norm=_norm(model),
        ffn_norm=_norm(model),
        attention=_attention(model, sequence_length),
        feed_forward=make_ffn_config(
            dim=model.dim,
            hidden_dim=model.ffn_hidden_dim,
            w1_param_init=_INIT,
            w2w3_param_init=_INIT,
        ),
    )


def _attention(model: ModelConfig, sequence_length: int) -> Olmo2Attention.Config:
    shapes = make_gqa_config(
        dim=model.dim,
        n_heads=model.num_heads,
        n_kv_heads=model.num_kv_heads,
        wqkv_param_init=_INIT,
        wo_param_init=_INIT,
        inner_attention=get_attention_config("flex"),
        fuse_qkv=model.num_kv_heads > 1,  # parts of one group share storage: no save
        rope=CosSinRoPE.Config(
            dim=model.dim // model.num_heads,
            max_seq_len=sequence_length,
            theta=model.rope_theta,
            scaling="none",
        ),
    )
    return Olmo2Attention.Config(
        n_heads=shapes.n_heads,
        n_kv_heads=shapes.n_kv_heads,
        dim=shapes.dim,
        qkv_linear=shapes.qkv_linear,
        wo=shapes.wo,
        inner_attention=shapes.inner_attention,
        rope=shapes.rope,
        query_norm=_heads_norm(model, model.num_heads),
        key_norm=_heads_norm(model, model.num_kv_heads),
    )


def _norm(model: ModelConfig) -> RMSNorm.Config:
    return RMSNorm.Config(normalized_shape=model.dim, eps=model.norm_eps, param_init=_NORM_INIT)


def _heads_norm(model: ModelConfig, heads: int) -> HeadsNorm.Config:
    width = model.dim // model.num_heads * heads
    return HeadsNorm.Config(normalized_shape=width, eps=model.norm_eps, param_init=_NORM_INIT)


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart."""
    return {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
        **hf.shapes(model, hf.GROUPED_RMS_NAMES),
        **hf.rope(model),
        "rope_theta": model.rope_theta,
        "max_position_embeddings": sequence_length,
        "hidden_act": "silu",
        "attention_bias": False,
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    theta = hf.rope_theta(config)
    return hf.model(config, hf.GROUPED_RMS_NAMES, architecture="olmo2", rope_theta=theta)
