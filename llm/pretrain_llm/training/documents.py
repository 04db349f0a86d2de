"""Packed documents in a row of tokens: where each starts. Torch only, no torchtitan."""

from __future__ import annotations

import torch


def document_positions(inputs: torch.Tensor, eos_id: int) -> torch.Tensor:
    """Offset of each token in its document: a row starts one, and so does the token after EOS.

    Shape (batch, length) of both.
    """
    offsets = torch.arange(inputs.shape[1]).expand_as(inputs)
    is_first = torch.zeros_like(inputs, dtype=torch.bool)
    is_first[:, 0] = True
    is_first[:, 1:] |= inputs[:, :-1] == eos_id
    return offsets - torch.where(is_first, offsets, 0).cummax(dim=1).values


def visible(positions: torch.Tensor) -> torch.Tensor:
    """The mask of `causal_within` from positions in the documents (batch, length)."""
    return causal_within((positions == 0).cumsum(dim=1))


def causal_within(document: torch.Tensor) -> torch.Tensor:
    """Which token sees which: itself, and what is before it in its document.

    Numbers of the tokens' documents (batch, length) -> bool (batch, 1, length, length), true where
    the row's token sees the column's.
    """
    length = document.shape[1]
    same = document[:, None, :, None] == document[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool).tril()
