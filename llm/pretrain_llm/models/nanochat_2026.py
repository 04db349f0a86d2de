"""nanochat of 2026: that of October 2025 with tables of value embeddings in every other block,
gates and scalars on the residual stream, a smear of the embedded tokens, and sliding windows.

Source: Karpathy 2026 (nanochat, 92d63d4), gpt.py and its initialisation; value embeddings after
Zhou et al. 2024 (Value Residual Learning). A family of its own: none of this is a choice there, and
nothing of it is in the first one, which transformers has a class for. Documents are apart in
training here, so the first token of each has no smear. Every rank has the whole model: the middle
block's output, the first one's input and the tokens themselves are read far behind them. Not here:
anything of the device.
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
from torch.nn.attention.flex_attention import BlockMask
from torchtitan.models.common import Embedding, Linear
from torchtitan.models.common.attention import (
    AttentionMasksType,
    GQAttention,
    get_causal_mask_mod,
    get_efficient_causal_mask_mod_for_packed_document,
    get_sliding_window_mask_mod,
)
from torchtitan.models.common.config_utils import get_attention_config, make_gqa_config
from torchtitan.models.common.decoder import Decoder, TransformerBlock
from torchtitan.models.common.decoder_sharding import (
    dense_param_placement,
    rowwise_config,
    set_decoder_sharding_config,
)
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.models.llama3.model import Llama3TransformerBlock
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.sharding import ShardingConfig

from ..contract.config import ModelConfig
from .nanochat import (
    LOGIT_CAP,
    CappedLinear,
    ClockwiseRoPE,
    Init,
    NanochatAdapter,
    SquaredReluFeedForward,
    rms_norm,
)
from .parts import hf_config as hf
from .parts.decoder_spec import decoder_spec
from .parts.sharding import set_block_sharding

QUERY_KEY_SCALE = 1.2  # of each, behind its norm
GATE_CHANNELS, SMEAR_CHANNELS = 12, 24  # of the stream, that the gates read
LARGEST_GATE = 3.0
WINDOW_UNIT = 128  # tokens
LONG_INTERVAL = 4  # blocks; the last of each such group, and of all, sees everything

_ZERO_INIT: Init = {"weight": nn.init.zeros_}
_GATE_INIT: Init = {"weight": partial(nn.init.uniform_, a=0.0, b=0.02)}
_EMBEDDING_INIT: Init = {"weight": partial(nn.init.normal_, std=0.8)}
_OUTPUT_INIT: Init = {"weight": partial(nn.init.normal_, std=0.001)}
_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


def short_window(sequence_length: int) -> int:
    """How many tokens before its own a token of a short block sees."""
    return -(-sequence_length // 4 // WINDOW_UNIT) * WINDOW_UNIT


def window(model: ModelConfig, sequence_length: int, block: int) -> int | None:
    """None: all tokens before its own."""
    is_long = (block + 1) % LONG_INTERVAL == 0 or block == model.num_layers - 1
    short = short_window(sequence_length)
    return None if is_long or short >= sequence_length else short


def has_value_embeddings(model: ModelConfig, block: int) -> bool:
    """Every other block has a table, the last one among them."""
    return (model.num_layers - 1 - block) % 2 == 0


class WindowedAttention(GQAttention):
    """Adds a token's own value embedding to its values, as much as the gate of each head lets in.

    The norms of queries and keys stand before the rotation, which leaves them as they are.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(GQAttention.Config):
        window: int | None
        value_gate: Linear.Config | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._mask = "all" if config.window is None else "window"
        self.value_gate = None if config.value_gate is None else config.value_gate.build()

    def forward(  # type: ignore[override]
        self,
        x_BLD: Tensor,  # noqa: N803  torchtitan binds these names
        value_embeddings: Tensor | None,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        q, k, v = self.qkv_linear(x_BLD)  # each (batch, length, heads, width of a head)
        if value_embeddings is not None:
            gate = LARGEST_GATE * torch.sigmoid(self.value_gate(x_BLD[..., :GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value_embeddings.view_as(v)
        q, k = self.rope(self.q_norm(q), self.k_norm(k), positions)
        if isinstance(attention_masks, dict):
            attention_masks = attention_masks[self._mask]
        out = self.inner_attention(
            q,
            k,
            v,
            attention_masks=attention_masks,
            scale=QUERY_KEY_SCALE**2 * self.head_dim**-0.5,
            enable_gqa=self.enable_gqa,
        )
        return self.wo(out.contiguous().flatten(2))


class Nanochat2026Block(Llama3TransformerBlock):
    """Mixes the stream with what the first block read before it does anything else."""

    @dataclass(kw_only=True, slots=True)
    class Config(TransformerBlock.Config):
        feed_forward: SquaredReluFeedForward.Config
        value_embeddings: Embedding.Config | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        table = config.value_embeddings
        self.value_embeddings = None if table is None else table.build()
        self.residual_scale = nn.Parameter(torch.empty(1))
        self.start_scale = nn.Parameter(torch.empty(1))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        start: Tensor,
        tokens: Tensor,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """`x` and `start`, which is the first block's `x`, are (batch, length, dim)."""
        x = self.residual_scale * x + self.start_scale * start
        values = None if self.value_embeddings is None else self.value_embeddings(tokens)
        h = x + self.attention(self.attention_norm(x), values, attention_masks, positions)
        return h + self.feed_forward(self.ffn_norm(h))


class Nanochat2026Model(Decoder):
    """Lets each token look back at the one before it at the start (smear), and takes what the
    stream was in the middle from what it is at the end (backout)."""

    @dataclass(kw_only=True, slots=True)
    class Config(Decoder.Config):
        smear_gate: Linear.Config

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            Decoder.Config.update_from_config(self, config=config, **kwargs)
            set_decoder_sharding_config(self, enable_sp=False)
            self.smear_gate.sharding_config = _whole("weight")
            self.sharding_config = _whole("smear_scale", "backout_scale")
            for block in self.layers:
                set_block_sharding(block, rowwise_config(), in_sequence=False)
                block.sharding_config = _whole("residual_scale", "start_scale")
                for part in (block.value_embeddings, block.attention.value_gate):
                    if part is not None:
                        part.sharding_config = _whole("weight")

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            """As torchtitan counts them, each block's attention within its window."""
            parameters = sum(parameter.numel() for parameter in model.parameters())
            tables = sum(
                part.weight.numel()
                for part in model.modules()
                if isinstance(part, nn.Embedding)
                and not (self.enable_weight_tying and part is model.tok_embeddings)
            )
            seen = sum(layer.attention.window or seq_len for layer in self.layers)
            return parameters, 6 * (parameters - tables) + 12 * self.dim * seen

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.smear_gate = config.smear_gate.build()
        self.smear_scale = nn.Parameter(torch.empty(1))
        self.backout_scale = nn.Parameter(torch.empty(1))

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        attention_masks: AttentionMasksType | None = None,
    ) -> Tensor:
        start = self._smeared(self._normed(self.tok_embeddings(tokens)), positions)
        h = middle = start
        for number, layer in enumerate(self.layers.values()):
            h = layer(h, start, tokens, attention_masks, positions)
            middle = h if number == len(self.layers) // 2 else middle
        return self.lm_head(self.norm(h - self.backout_scale * middle))

    def get_attention_masks(self, positions: Tensor) -> AttentionMasksType | None:
        """Of an attention that has no window of its own, one mask for each kind of block."""
        masks = super().get_attention_masks(positions)
        windows = {layer.attention.window for layer in self.config.layers} - {None}
        if not windows or not isinstance(masks, BlockMask):
            return masks
        rules = [
            get_causal_mask_mod(),
            get_efficient_causal_mask_mod_for_packed_document(positions),
            get_sliding_window_mask_mod(windows.pop() + 1),
        ]
        attention = self.config.first_attention
        windowed = self._create_flex_attention_mask(positions, attention, rules)
        return {"all": masks, "window": windowed}

    def _smeared(self, x: Tensor, positions: Tensor | None) -> Tensor:
        """A document's first token, at position 0, has none before it."""
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
        gate = self.smear_scale * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return x + (gate * (positions != 0).unsqueeze(-1)) * x.roll(1, dims=1)

    def _normed(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (self.config.dim,), eps=self.config.norm.eps)


def _whole(*parameters: str) -> ShardingConfig:
    """What no tensor parallelism splits."""
    return ShardingConfig(
        state_shardings={name: dense_param_placement(tp=spmd.R) for name in parameters}
    )


class Nanochat2026Adapter(NanochatAdapter):
    names: Mapping[str, str] = {
        **NanochatAdapter.names,
        "layers.{}.attention.value_gate.weight": "model.layers.{}.self_attn.value_gate.weight",
        "layers.{}.value_embeddings.weight": "model.layers.{}.value_embeddings.weight",
        "layers.{}.residual_scale": "model.layers.{}.residual_scale",
        "layers.{}.start_scale": "model.layers.{}.start_scale",
        "smear_gate.weight": "model.smear_gate.weight",
        "smear_scale": "model.smear_scale",
        "backout_scale": "model.backout_scale",
    }


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    return decoder_spec(model, _decoder(model, sequence_length), Nanochat2026Adapter)


def _decoder(model: ModelConfig, sequence_length: int) -> Nanochat2026Model.Config:
    """nanochat unties its embedding; tied, its scale does not matter to the norm behind it."""
    tied_output = {"weight": partial(nn.init.normal_, std=model.dim**-0.5)}
    return Nanochat2026Model.Config(
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
            param_init=tied_output if model.tie_embeddings else _OUTPUT_INIT,
        ),
        layers=[_layer(model, sequence_length, block) for block in range(model.num_layers)],
        smear_gate=Linear.Config(
            in_features=min(SMEAR_CHANNELS, model.dim), out_features=1, param_init=_GATE_INIT
        ),
        param_init={
            "smear_scale": nn.init.zeros_,
            "backout_scale": partial(nn.init.constant_, val=0.2),
        },
    )


def _layer(model: ModelConfig, sequence_length: int, block: int) -> Nanochat2026Block.Config:
    depth = block / max(model.num_layers - 1, 1)  # 0 to 1
    width, has_table = model.dim // model.num_heads, has_value_embeddings(model, block)
    table = Embedding.Config(
        num_embeddings=model.vocab_size,
        embedding_dim=width * model.num_kv_heads,
        param_init=_uniform_init(model),
    )
    return Nanochat2026Block.Config(
        attention_norm=rms_norm(model, model.dim),
        ffn_norm=rms_norm(model, model.dim),
        attention=_attention(model, sequence_length, block),
        feed_forward=SquaredReluFeedForward.Config(
            w1=Linear.Config(
                in_features=model.dim,
                out_features=model.ffn_hidden_dim,
                param_init=_uniform_init(model, 0.4),
            ),
            w2=Linear.Config(
                in_features=model.ffn_hidden_dim, out_features=model.dim, param_init=_ZERO_INIT
            ),
        ),
        value_embeddings=table if has_table else None,
        param_init={
            "residual_scale": partial(nn.init.constant_, val=1.15 - 0.10 * depth),
            "start_scale": partial(nn.init.constant_, val=0.20 - 0.15 * depth),
        },
    )


def _attention(model: ModelConfig, sequence_length: int, block: int) -> WindowedAttention.Config:
    width = model.dim // model.num_heads
    shapes = make_gqa_config(
        dim=model.dim,
        n_heads=model.num_heads,
        n_kv_heads=model.num_kv_heads,
        wqkv_param_init=_uniform_init(model),
        wo_param_init=_ZERO_INIT,
        inner_attention=get_attention_config("flex"),
        fuse_qkv=model.num_kv_heads > 1,  # parts of one group share storage: no save
        rope=ClockwiseRoPE.Config(dim=width, max_seq_len=sequence_length, theta=model.rope_theta),
    )
    gate = Linear.Config(
        in_features=min(GATE_CHANNELS, model.dim),
        out_features=model.num_kv_heads,
        param_init=_GATE_INIT,
    )
    return WindowedAttention.Config(
        n_heads=shapes.n_heads,
        n_kv_heads=shapes.n_kv_heads,
        dim=shapes.dim,
        qkv_linear=shapes.qkv_linear,
        wo=shapes.wo,
        qk_norm=rms_norm(model, width),
        inner_attention=shapes.inner_attention,
        rope=shapes.rope,
        window=window(model, sequence_length, block),
        value_gate=gate if has_value_embeddings(model, block) else None,
    )


def _uniform_init(model: ModelConfig, factor: float = 1.0) -> Init:
    """Of the standard deviation factor / sqrt(dim)."""
    bound = factor * (3 / model.dim) ** 0.5
    return {"weight": partial(nn.init.uniform_, a=-bound, b=bound)}


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart. `windows` are tokens before a token's own,
    null for all, by block."""
    blocks = range(model.num_layers)
    return {
        "architectures": ["Nanochat2026ForCausalLM"],
        "model_type": "nanochat_2026",
        **hf.shapes(model, hf.GROUPED_RMS_NAMES),
        **hf.rope(model),
        "max_position_embeddings": sequence_length,
        "final_logit_softcapping": LOGIT_CAP,
        "hidden_act": "relu2",
        "attention_bias": False,
        "query_key_scale": QUERY_KEY_SCALE,
        "largest_gate": LARGEST_GATE,
        "gate_channels": min(GATE_CHANNELS, model.dim),
        "smear_channels": min(SMEAR_CHANNELS, model.dim),
        "value_embedding_layers": [block for block in blocks if has_value_embeddings(model, block)],
        "backout_layer": model.num_layers // 2,
        "windows": [window(model, sequence_length, block) for block in blocks],
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    theta = hf.rope_theta(config)
    return hf.model(config, hf.GROUPED_RMS_NAMES, architecture="nanochat_2026", rope_theta=theta)
