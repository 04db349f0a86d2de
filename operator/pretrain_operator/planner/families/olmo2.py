"""OLMo 2 as pretrain_llm builds it: Llama's weights and two norms over all query and key heads;
norms behind attention and feed-forward.

Sources: as in `llama`; what differs is derived from pretrain_llm/models/olmo2.py, and
tests/llm/test_planner_memory.py compares it with the real model.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.config import ModelConfig

from . import llama
from .family import Microbatch, Weight, Weights

_FLOAT32_BYTES = 4


def _block(model: ModelConfig) -> Weights:
    """Both norms are whole on every rank of tensor parallelism."""
    query_norm = Weight("q_norm", (model.dim,))
    key_norm = Weight("k_norm", (llama.kv_dim(model),))
    return (*llama.FAMILY.block(model), query_norm, key_norm)


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode, as in `llama`."""
    if mode == "none":
        return _kept(model, batch)
    return llama.FAMILY.block_activation_bytes(model, batch, mode)


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """The block's input and the residual stream between its halves feed matmuls, gathered; the
    query and key norms save their gathered inputs, the others wo's and w2's outputs, all four
    1/rms; attention and SwiGLU save what Llama's do; cosines and sines are float32."""
    kv_dim = llama.kv_dim(model)
    split = 4 * model.dim + 2 * kv_dim + 4 * model.ffn_hidden_dim
    whole = 3 * model.dim + kv_dim
    values = (split / batch.tensor_parallel + whole) * batch.value_bytes
    float32 = (model.num_heads + 2) / batch.tensor_parallel + 2 + 2 * model.dim / model.num_heads
    return batch.tokens * (values + float32 * _FLOAT32_BYTES)


def _block_buffer_bytes(model: ModelConfig, sequence_length: int) -> int:
    """Every block has its own table of cosines and sines."""
    return sequence_length * 2 * (model.dim // model.num_heads) * _FLOAT32_BYTES


FAMILY = replace(
    llama.FAMILY,
    block=_block,
    block_activation_bytes=_block_activation_bytes,
    block_buffer_bytes=_block_buffer_bytes,
)
