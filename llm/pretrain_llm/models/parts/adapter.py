"""Weights by Hugging Face's names and back, for families whose tensors are the same in both.

Never splits, turns or permutes a tensor: a family that needs that extends the class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torchtitan.protocols.state_dict_adapter import StateDictAdapter

_BLOCK = re.compile(r"\.(\d+)\.")


class RenamingAdapter(StateDictAdapter):
    """`names`: ours to Hugging Face's, {} for the number of the block."""

    names: ClassVar[Mapping[str, str]]

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Without the output layer where it is the embedding. Raises KeyError for other names."""
        return {
            _renamed(name, self.names): tensor
            for name, tensor in state_dict.items()
            if not (name == "lm_head.weight" and self._is_tied)
        }

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """The inverse of `to_hf`. Raises KeyError for other names."""
        theirs = {hf: ours for ours, hf in self.names.items()}
        ours = {_renamed(name, theirs): tensor for name, tensor in hf_state_dict.items()}
        if self._is_tied:
            ours["lm_head.weight"] = ours["tok_embeddings.weight"]
        return ours

    @property
    def _is_tied(self) -> bool:
        return bool(self.model_config.enable_weight_tying)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    block = _BLOCK.search(name)
    if block is None:
        return names[name]
    return names[_BLOCK.sub(".{}.", name)].format(block[1])
