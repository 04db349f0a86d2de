"""nanochat of 2026 for transformers: what models/nanochat_2026.py trains, read from config.json.

Made of transformers' own NanoChat, of October 2025, and what nanochat has got since. Without a
cache: the smear reads the token before, which transformers' caches do not keep, so that generation
computes every token again. Never used in training; export and post-training are its users.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import NanoChatConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutputWithPast
from transformers.models.nanochat.modeling_nanochat import (
    NanoChatMLP,
    NanoChatRMSNorm,
    NanoChatRotaryEmbedding,
    apply_rotary_pos_emb,
)


class Nanochat2026Config(NanoChatConfig):
    """`windows`: tokens before its own that a token of each block sees, None for all."""

    model_type = "nanochat_2026"

    query_key_scale: float = 1.2
    largest_gate: float = 3.0
    gate_channels: int = 12
    smear_channels: int = 24
    value_embedding_layers: list[int] | None = None
    backout_layer: int = 0
    windows: list[int | None] | None = None
    use_cache: bool = False


class Attention(nn.Module):
    def __init__(self, config: Nanochat2026Config, block: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.hidden_size // config.num_attention_heads
        kv_dim = self.width * config.num_key_value_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, kv_dim, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.norm = NanoChatRMSNorm(eps=config.rms_norm_eps)
        self.value_gate = None
        if block in config.value_embedding_layers:
            heads = config.num_key_value_heads
            self.value_gate = nn.Linear(config.gate_channels, heads, bias=False)

    def forward(
        self,
        x: Tensor,
        value_embeddings: Tensor | None,
        mask: Tensor,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.width)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if value_embeddings is not None:
            logits = self.value_gate(x[..., : self.config.gate_channels])
            gate = self.config.largest_gate * torch.sigmoid(logits)
            own = value_embeddings.unflatten(-1, (-1, self.width)) * gate.unsqueeze(-1)
            v = v + own.transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *rotation)
        scale = self.config.query_key_scale**2 * self.width**-0.5
        out = functional.scaled_dot_product_attention(
            self.norm(q), self.norm(k), v, attn_mask=mask, scale=scale, enable_gqa=True
        )
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Block(GradientCheckpointingLayer):
    def __init__(self, config: Nanochat2026Config, block: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, block)
        self.mlp = NanoChatMLP(config)
        self.norm = NanoChatRMSNorm(eps=config.rms_norm_eps)
        self.residual_scale = nn.Parameter(torch.ones(1))
        self.start_scale = nn.Parameter(torch.zeros(1))
        self.value_embeddings = None
        if block in config.value_embedding_layers:
            kv_dim = self.self_attn.width * config.num_key_value_heads
            self.value_embeddings = nn.Embedding(config.vocab_size, kv_dim)

    def forward(
        self,
        x: Tensor,
        start: Tensor,
        tokens: Tensor,
        mask: Tensor,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        x = self.residual_scale * x + self.start_scale * start
        values = None if self.value_embeddings is None else self.value_embeddings(tokens)
        h = x + self.self_attn(self.norm(x), values, mask, rotation)
        return h + self.mlp(self.norm(h))


class Nanochat2026PreTrainedModel(PreTrainedModel):
    config_class = Nanochat2026Config
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block",)
    _supports_sdpa = True


class Nanochat2026Model(Nanochat2026PreTrainedModel):
    def __init__(self, config: Nanochat2026Config) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            Block(config, block) for block in range(config.num_hidden_layers)
        )
        self.norm = NanoChatRMSNorm(eps=config.rms_norm_eps)
        self.rotary_emb = NanoChatRotaryEmbedding(config=config)
        self.smear_gate = nn.Linear(config.smear_channels, 1, bias=False)
        self.smear_scale = nn.Parameter(torch.zeros(1))
        self.backout_scale = nn.Parameter(torch.zeros(1))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """The last hidden states, (batch, length, dim). Positions default to the tokens'; the mask
        is of tokens (batch, length), or of pairs (batch, 1, length, length) true where a row's
        token sees a column's."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        start = self._smeared(self.norm(self.embed_tokens(input_ids)), position_ids)
        rotation = self.rotary_emb(start, position_ids=position_ids)
        masks = self._masks(attention_mask, *input_ids.shape, device=start.device)
        h = middle = start
        for number, layer in enumerate(self.layers):
            h = layer(h, start, input_ids, masks[self.config.windows[number]], rotation)
            middle = h if number == self.config.backout_layer else middle
        return BaseModelOutput(last_hidden_state=self.norm(h - self.backout_scale * middle))

    def _smeared(self, x: Tensor, position_ids: Tensor) -> Tensor:
        gate = torch.sigmoid(self.smear_gate(x[..., : self.config.smear_channels]))
        has_before = (position_ids != 0).unsqueeze(-1)
        return x + self.smear_scale * gate * has_before * x.roll(1, dims=1)

    def _masks(
        self, given: Tensor | None, batch: int, length: int, device: torch.device
    ) -> dict[int | None, Tensor]:
        """One of (batch, 1, length, length) for each width of window. Every token sees itself, also
        where it is padding: a row without any would be no number."""
        pairs = torch.ones(length, length, dtype=torch.bool, device=device)
        seen = pairs.tril().expand(batch, 1, -1, -1)
        if given is not None:
            seen = seen & (given[:, None, None, :] if given.dim() == 2 else given).bool()
        seen = seen | pairs.tril().triu()
        return {
            window: seen if window is None else seen & pairs.triu(-window)
            for window in set(self.config.windows)
        }


class Nanochat2026ForCausalLM(Nanochat2026PreTrainedModel, GenerationMixin):
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Nanochat2026Config) -> None:
        super().__init__(config)
        self.model = Nanochat2026Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of the last `logits_to_keep` tokens, of all with 0."""
        hidden = self.model(input_ids, attention_mask, position_ids).last_hidden_state
        cap = self.config.final_logit_softcapping
        logits = cap * torch.tanh(self.lm_head(hidden[:, -logits_to_keep:]) / cap)
        loss = None
        if labels is not None:
            vocabulary = self.config.vocab_size
            loss = self.loss_function(logits, labels, vocabulary, **others)
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """All tokens at every step; positions count from a row's first token that is no padding."""
        if attention_mask is None:
            return {"input_ids": input_ids}
        positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": positions,
        }
