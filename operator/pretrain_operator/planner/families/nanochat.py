"""nanochat as pretrain_llm builds it: norms without weights, also of queries and keys, and two
matrices around a squared ReLU.

Sources: as in `llama`; what differs is derived from pretrain_llm/models/nanochat.py, and
tests/llm/test_planner_memory.py compares it with the real model.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.config import ModelConfig

from . import llama, olmo2
from .family import Microbatch, Weight, Weights

_FLOAT32_BYTES = 4


def _block(model: ModelConfig) -> Weights:
    dim, hidden = model.dim, model.ffn_hidden_dim
    return (
        Weight("wqkv", (dim + 2 * llama.kv_dim(model), dim), split=0),
        Weight("wo", (dim, dim), split=1),
        Weight("w1", (hidden, dim), split=0),
        Weight("w2", (dim, hidden), split=1),
    )


def _head(model: ModelConfig) -> Weights:
    return tuple(weight for weight in llama.FAMILY.head(model) if weight.name != "norm")


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode, as in `llama`."""
    if mode == "full":
        return llama.FAMILY.block_activation_bytes(model, batch, mode)
    return _kept_by_selective(model, batch) if mode == "selective" else _kept(model, batch)


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """Norms save their input and 1/rms, those of queries and keys for each head; the gathered
    outputs of the other two feed wqkv and w1; attention saves q, k, v, its output and log-sum-exp;
    the squared ReLU saves what it squares, w2 the square; cosines and sines are float32."""
    kv_dim = llama.kv_dim(model)
    split = 5 * model.dim + 3 * kv_dim + 2 * model.ffn_hidden_dim
    whole = 2 * model.dim
    values = (split / batch.tensor_parallel + whole) * batch.value_bytes
    heads = 2 * model.num_heads + model.num_kv_heads
    float32 = (heads + 2) / batch.tensor_parallel + 2 * model.dim / model.num_heads
    return batch.tokens * (values + float32 * _FLOAT32_BYTES)


def _kept_by_selective(model: ModelConfig, batch: Microbatch) -> float:
    """The block's input, attention's output and log-sum-exp, and every other matmul's output, the
    first of four saved: wqkv and w1."""
    split = model.dim + model.dim + model.dim + 2 * llama.kv_dim(model) + model.ffn_hidden_dim
    log_sum_exp = model.num_heads * _FLOAT32_BYTES
    return batch.tokens * (split * batch.value_bytes + log_sum_exp) / batch.tensor_parallel


def _recomputed_share(model: ModelConfig, mode: str) -> float:
    """Selective computes wo and w2 again."""
    if mode != "selective":
        return llama.FAMILY.recomputed_share(model, mode)
    again = model.dim * (model.dim + model.ffn_hidden_dim)
    return again / sum(weight.elements for weight in _block(model))


FAMILY = replace(
    llama.FAMILY,
    block=_block,
    head=_head,
    block_activation_bytes=_block_activation_bytes,
    block_buffer_bytes=olmo2.FAMILY.block_buffer_bytes,  # cosines and sines, too
    recomputed_share=_recomputed_share,
)
