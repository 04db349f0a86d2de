"""SmolLM3: Llama in which every fourth block attends without positions (NoPE).

Source: Bakouch et al. 2025 (SmolLM3), after Yang et al. 2025 (RoPE to NoPE and Back Again). Weights
are Llama's, also their order in Hugging Face's form: a block without rotation does not mind it, as
queries and keys are permuted alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torchtitan.protocols.model_spec import ModelSpec

from ..contract.config import ModelConfig
from . import llama
from .parts.nope import NoPE

NOPE_INTERVAL = 4  # blocks; the last of each such group has no positions


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    spec = llama.model_spec(model, sequence_length)
    for block in spec.model.layers[NOPE_INTERVAL - 1 :: NOPE_INTERVAL]:
        rope = block.attention.rope
        same = {field.name: getattr(rope, field.name) for field in fields(rope)}
        block.attention.rope = NoPE.Config(**same)
    return spec


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:
    """What config.json says, token ids and dtype apart."""
    has_rope = [int((block + 1) % NOPE_INTERVAL != 0) for block in range(model.num_layers)]
    return {
        **llama.hf_config(model, sequence_length),
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "no_rope_layer_interval": NOPE_INTERVAL,
        "no_rope_layers": has_rope,
        "use_sliding_window": False,
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    return replace(llama.model_of(config), architecture="smollm3")
