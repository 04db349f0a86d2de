"""A decoder that does more with its tokens than look them up, before its first block."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchtitan.models.common.attention import AttentionMasksType
from torchtitan.models.common.decoder import Decoder


class EmbeddedDecoder(Decoder):
    @dataclass(kw_only=True, slots=True)
    class Config(Decoder.Config):
        pass

    def embedded(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        """(batch, length) ids and positions to the residual stream that the first block reads."""
        raise NotImplementedError

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        attention_masks: AttentionMasksType | None = None,
    ) -> Tensor:
        """In a later pipeline stage `tokens` are the residual stream; parts it lacks are None."""
        h = tokens if self.tok_embeddings is None else self.embedded(tokens, positions)
        for layer in self.layers.values():
            h = layer(h, attention_masks, positions)
        h = h if self.norm is None else self.norm(h)
        return h if self.lm_head is None else self.lm_head(h)
