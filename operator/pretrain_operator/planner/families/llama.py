"""Llama as torchtitan builds it: fused QKV, grouped-query attention, SwiGLU, RMSNorm, no biases.

Sources: parameters and their splits: torchtitan 0.3.0 models/common/{attention,feed_forward,
decoder_sharding}.py; activations: what autograd saves, after Korthikanti et al. 2022 (Reducing
Activation Recomputation, section 4), redone for these operators; tests/llm/test_planner_memory.py
compares both with the real model.
"""

from __future__ import annotations

from pretrain_llm.contract.config import ModelConfig

from .family import Family, Microbatch, Weight, Weights

_FLOAT32_BYTES = 4
_COMPLEX64_BYTES = 8


def _embedding(model: ModelConfig) -> Weights:
    return (Weight("tok_embeddings", (model.vocab_size, model.dim), split=0),)


def _block(model: ModelConfig) -> Weights:
    dim, hidden = model.dim, model.ffn_hidden_dim
    return (
        Weight("attention_norm", (dim,)),
        Weight("wqkv", (dim + 2 * kv_dim(model), dim), split=0),
        Weight("wo", (dim, dim), split=1),
        Weight("ffn_norm", (dim,)),
        Weight("w1", (hidden, dim), split=0),
        Weight("w3", (hidden, dim), split=0),
        Weight("w2", (dim, hidden), split=1),
    )


def _head(model: ModelConfig) -> Weights:
    norm = Weight("norm", (model.dim,))
    if model.tie_embeddings:
        return (norm,)
    return (norm, Weight("lm_head", (model.vocab_size, model.dim), split=0))


def kv_dim(model: ModelConfig) -> int:
    return model.dim // model.num_heads * model.num_kv_heads


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode: none keeps all, full the input, selective what torchtitan's policy saves.

    With tensor (and so sequence) parallelism, residual stream and norms are split along the
    sequence and all else along heads or the hidden dimension; only the gathered inputs of wqkv, w1
    and w3, and the rotary table, are whole.
    """
    if mode == "full":
        return _residual(model, batch)
    return _kept_by_selective(model, batch) if mode == "selective" else _kept(model, batch)


def _residual(model: ModelConfig, batch: Microbatch) -> float:
    return batch.tokens * model.dim * batch.value_bytes / batch.tensor_parallel


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """Norms save their input and 1/rms; the gathered outputs feed wqkv, w1 and w3; attention saves
    q, k, v, its output (which is wo's input too) and log-sum-exp; SwiGLU saves w1's and w3's
    outputs, their silu and the product."""
    split = 2 * model.dim + 2 * model.dim + 2 * kv_dim(model) + 4 * model.ffn_hidden_dim
    whole = 2 * model.dim
    values = (split / batch.tensor_parallel + whole) * batch.value_bytes
    float32 = (model.num_heads + 2) / batch.tensor_parallel * _FLOAT32_BYTES
    rotary = model.dim // model.num_heads / 2 * _COMPLEX64_BYTES
    return batch.tokens * (values + float32 + rotary)


def _kept_by_selective(model: ModelConfig, batch: Microbatch) -> float:
    """The block's input, attention's output and log-sum-exp, and every other matmul's output, the
    first of five saved: wqkv, w1 and, under tensor parallelism a whole partial sum, w2 (torchtitan
    0.3.0, SelectiveAC)."""
    split = model.dim + model.dim + 2 * kv_dim(model) + model.dim + model.ffn_hidden_dim
    values = split / batch.tensor_parallel + model.dim
    log_sum_exp = model.num_heads / batch.tensor_parallel * _FLOAT32_BYTES
    return batch.tokens * (values * batch.value_bytes + log_sum_exp)


def _block_working_bytes(model: ModelConfig, batch: Microbatch) -> float:
    """SwiGLU's backward is the widest: gradients of silu, w1's and w3's outputs, and of two inputs
    of the block's width."""
    values = 3 * model.ffn_hidden_dim / batch.tensor_parallel + 2 * model.dim
    return batch.tokens * values * batch.value_bytes


def _head_activation_bytes(model: ModelConfig, batch: Microbatch) -> float:
    """The final norm's input and 1/rms, and its gathered output."""
    norm = (model.dim * batch.value_bytes + _FLOAT32_BYTES) / batch.tensor_parallel
    return batch.tokens * (norm + model.dim * batch.value_bytes)


def _block_buffer_bytes(model: ModelConfig, sequence_length: int) -> int:
    """torchtitan gives every block its own table of rotations."""
    return sequence_length * (model.dim // model.num_heads // 2) * _COMPLEX64_BYTES


def _recomputed_share(model: ModelConfig, mode: str) -> float:
    """Selective computes wo and w3 again (see above)."""
    if mode != "selective":
        return 1.0 if mode == "full" else 0.0
    again = model.dim * (model.dim + model.ffn_hidden_dim)
    return again / sum(weight.elements for weight in _block(model) if len(weight.shape) > 1)


def _attention_flops(model: ModelConfig, sequence_length: int) -> float:
    """12 L d s, the mask not taken into account. Source: Chowdhery et al. 2022 (PaLM), appendix B;
    torchtitan counts the same."""
    return 12.0 * model.num_layers * model.dim * sequence_length


FAMILY = Family(
    embedding=_embedding,
    block=_block,
    head=_head,
    block_activation_bytes=_block_activation_bytes,
    block_working_bytes=_block_working_bytes,
    head_activation_bytes=_head_activation_bytes,
    block_buffer_bytes=_block_buffer_bytes,
    recomputed_share=_recomputed_share,
    attention_flops=_attention_flops,
)
