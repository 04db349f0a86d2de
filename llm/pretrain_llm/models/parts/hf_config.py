"""A config.json from the spec's shapes and back: the fields that families share.

A family says which of Hugging Face's names stand for which shapes; what else its config.json says
is its own. The names are transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...contract.config import ModelConfig

Names = Mapping[str, str]  # Hugging Face's name: ours

NAMES: Names = {
    "hidden_size": "dim",
    "intermediate_size": "ffn_hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "vocab_size": "vocab_size",
    "tie_word_embeddings": "tie_embeddings",
}
GROUPED_RMS_NAMES: Names = {
    **NAMES,
    "num_key_value_heads": "num_kv_heads",
    "rms_norm_eps": "norm_eps",
}


def shapes(model: ModelConfig, names: Names) -> dict[str, Any]:
    return {theirs: getattr(model, ours) for theirs, ours in names.items()}


def rope(model: ModelConfig, **others: Any) -> dict[str, Any]:
    """The rotation as transformers 5 has it; `others` are further parameters of it."""
    parameters = {"rope_type": "default", "rope_theta": model.rope_theta, **others}
    return {"rope_parameters": parameters}


def rope_theta(config: Mapping[str, Any], older_name: str = "rope_theta") -> float:
    """Also of a config.json of transformers 4, under its older name. Raises KeyError."""
    parameters = config.get("rope_parameters") or {"rope_theta": config[older_name]}
    return float(parameters["rope_theta"])


def model(config: Mapping[str, Any], names: Names, **others: Any) -> ModelConfig:
    """The inverse of `shapes`, with what `others` give. Raises KeyError."""
    return ModelConfig(**{ours: config[theirs] for theirs, ours in names.items()}, **others)
