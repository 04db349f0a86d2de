"""What the GPT family adds to torchtitan's parts: LayerNorm, biases, a feed-forward with GELU.

Attention is multi-headed, without groups. A model without biases (`biases: false`) has the same
parts without theirs. Says nothing of how a block joins its branches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torchtitan.models.common import Linear, RoPE
from torchtitan.models.common.attention import AttentionMasksType, GQAttention
from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config
from torchtitan.models.common.decoder import Decoder, TransformerBlock
from torchtitan.models.common.decoder_sharding import rowwise_config, set_decoder_sharding_config
from torchtitan.models.common.linear import ScaledBiasRowwiseLinear
from torchtitan.models.common.nn_modules import GELU, LayerNorm
from torchtitan.models.gpt_oss.sharding import scaled_bias_rowwise_config
from torchtitan.models.llama3.model import Llama3Model
from torchtitan.protocols.module import Module
from torchtitan.protocols.sharding import ShardingConfig

from ...contract.config import ModelConfig
from .sharding import set_block_sharding

Init = dict[str, Callable[..., Any]]


class UnbiasedLayerNorm(LayerNorm):
    @dataclass(kw_only=True, slots=True)
    class Config(LayerNorm.Config):
        pass

    def __init__(self, config: Config) -> None:
        nn.LayerNorm.__init__(self, config.normalized_shape, eps=config.eps, bias=False)


class GeluFeedForward(Module):
    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        w1: Linear.Config
        w2: Linear.Config
        activation: GELU.Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.w1 = config.w1.build()
        self.w2 = config.w2.build()
        self.activation = config.activation.build()

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(self.activation(self.w1(x)))


class BiasedBlock(TransformerBlock):
    """Builds the parts; how they are joined is the family's `forward`."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        feed_forward: GeluFeedForward.Config
        attention_norm: LayerNorm.Config
        ffn_norm: LayerNorm.Config

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = config.attention.build()
        self.feed_forward = config.feed_forward.build()
        self.attention_norm = config.attention_norm.build()
        self.ffn_norm = config.ffn_norm.build()

    def forward(
        self,
        x: Tensor,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        raise NotImplementedError


class BiasedModel(Decoder):
    """Counts FLOPs as Llama does: the same matmuls."""

    @dataclass(kw_only=True, slots=True)
    class Config(Decoder.Config):
        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            Decoder.Config.update_from_config(self, config=config, **kwargs)
            in_sequence = config.parallelism.enable_sequence_parallel
            set_decoder_sharding_config(self, enable_sp=in_sequence)
            _add_bias(self.norm.sharding_config)
            for layer in self.layers:
                _set_block_sharding(layer, in_sequence)

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            return Llama3Model.Config.get_nparams_and_flops(self, model, seq_len)


def _set_block_sharding(block: BiasedBlock.Config, in_sequence: bool) -> None:
    has_bias = isinstance(block.attention.wo, ScaledBiasRowwiseLinear.Config)
    rowwise = scaled_bias_rowwise_config if has_bias else rowwise_config
    set_block_sharding(block, rowwise(output_sp=in_sequence), in_sequence)
    for norm in (block.attention_norm, block.ffn_norm):
        _add_bias(norm.sharding_config)


def _add_bias(sharding: ShardingConfig) -> ShardingConfig:
    """A norm's bias lies where its weight lies."""
    sharding.state_shardings["bias"] = sharding.state_shardings["weight"]
    return sharding


def bias_of_zeros(weight: Callable[..., Any]) -> Init:
    return {"weight": weight, "bias": nn.init.zeros_}


def layer_norm(model: ModelConfig) -> LayerNorm.Config:
    kind = UnbiasedLayerNorm if model.biases is False else LayerNorm
    return kind.Config(
        normalized_shape=model.dim, eps=model.norm_eps, param_init=bias_of_zeros(nn.init.ones_)
    )


def attention(model: ModelConfig, rope: RoPE.Config, inward: Init, outward: Init) -> Any:
    """GQAttention's Config; `inward` initialises wqkv, `outward` wo."""
    shapes: GQAttention.Config = make_gqa_config(
        dim=model.dim,
        n_heads=model.num_heads,
        wqkv_param_init=inward,
        wo_param_init=outward,
        inner_attention=get_attention_config("flex"),
        fuse_qkv=True,
        rope=rope,
    )
    if model.biases is not False:
        shapes.qkv_linear.wqkv.bias = True
        shapes.wo = _biased_rowwise(model.dim, model.dim, outward)
    return shapes


def feed_forward(
    model: ModelConfig, approximate: str, inward: Init, outward: Init
) -> GeluFeedForward.Config:
    """`approximate` is torch's word for the kind of GELU: none or tanh."""
    return GeluFeedForward.Config(
        w1=Linear.Config(
            in_features=model.dim,
            out_features=model.ffn_hidden_dim,
            bias=model.biases is not False,
            param_init=inward,
        ),
        w2=_rowwise(model, outward),
        activation=GELU.Config(approximate=approximate),
    )


def _rowwise(model: ModelConfig, init: Init) -> Linear.Config:
    if model.biases is not False:
        return _biased_rowwise(model.ffn_hidden_dim, model.dim, init)
    return Linear.Config(in_features=model.ffn_hidden_dim, out_features=model.dim, param_init=init)


def _biased_rowwise(width_in: int, width_out: int, init: Init) -> ScaledBiasRowwiseLinear.Config:
    return ScaledBiasRowwiseLinear.Config(
        in_features=width_in, out_features=width_out, bias=True, param_init=init
    )
