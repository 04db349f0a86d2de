"""GPT-2 as pretrain_llm builds it: GPT-NeoX's parts one after the other, a table of positions, no
rotation, biases or none.

Sources: as in `llama`; what differs is derived from pretrain_llm/models/gpt2.py, and
tests/llm/test_planner_memory.py compares it with the real model.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.config import ModelConfig

from . import gpt_neox, llama
from .family import Microbatch, Weight, Weights

_FLOAT32_BYTES = 4


def _embedding(model: ModelConfig) -> Weights:
    assert model.max_positions is not None
    positions = Weight("pos_embeddings", (model.max_positions, model.dim), split=0)
    return (*llama.FAMILY.embedding(model), positions)


def _block(model: ModelConfig) -> Weights:
    return _with_its_biases(model, gpt_neox.FAMILY.block(model))


def _head(model: ModelConfig) -> Weights:
    return _with_its_biases(model, gpt_neox.FAMILY.head(model))


def _with_its_biases(model: ModelConfig, weights: Weights) -> Weights:
    if model.biases is not False:
        return weights
    return tuple(weight for weight in weights if not weight.name.endswith("_bias"))


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode, as in `llama`."""
    if mode == "none":
        return _kept(model, batch)
    if mode == "selective" and model.biases is False:
        return _kept_by_selective(model, batch)
    return gpt_neox.FAMILY.block_activation_bytes(model, batch, mode)


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """Each norm saves its input, mean and 1/deviation; else as GPT-NeoX, without a rotation."""
    split = 6 * model.dim + 2 * model.ffn_hidden_dim
    whole = 2 * model.dim
    values = (split / batch.tensor_parallel + whole) * batch.value_bytes
    float32 = (model.num_heads + 4) / batch.tensor_parallel
    return batch.tokens * (values + float32 * _FLOAT32_BYTES)


def _kept_by_selective(model: ModelConfig, batch: Microbatch) -> float:
    """Without biases every other matmul's output is saved, the first of four: wqkv and w1."""
    split = model.dim + model.dim + 3 * model.dim + model.ffn_hidden_dim
    log_sum_exp = model.num_heads * _FLOAT32_BYTES
    return batch.tokens * (split * batch.value_bytes + log_sum_exp) / batch.tensor_parallel


def _block_buffer_bytes(model: ModelConfig, sequence_length: int) -> int:  # noqa: ARG001
    return 0


def _recomputed_share(model: ModelConfig, mode: str) -> float:
    """Selective computes wo and w2 again, where they have no biases (see GPT-NeoX)."""
    if mode != "selective" or model.biases is not False:
        return gpt_neox.FAMILY.recomputed_share(model, mode)
    again = model.dim * (model.dim + model.ffn_hidden_dim)
    return again / sum(weight.elements for weight in _block(model) if len(weight.shape) > 1)


FAMILY = replace(
    gpt_neox.FAMILY,
    embedding=_embedding,
    block=_block,
    head=_head,
    block_activation_bytes=_block_activation_bytes,
    block_buffer_bytes=_block_buffer_bytes,
    recomputed_share=_recomputed_share,
)
