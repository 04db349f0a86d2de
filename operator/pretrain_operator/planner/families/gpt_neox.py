"""GPT-NeoX as pretrain_llm builds it: LayerNorm, biases, GELU, attention beside the feed-forward.

Sources: as in `llama`; what differs is derived from pretrain_llm/models/gpt_neox.py, and
tests/llm/test_planner_memory.py compares it with the real model.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.config import ModelConfig

from . import llama
from .family import Microbatch, Weight, Weights

_FLOAT32_BYTES = 4
_ROTARY_SHARE = 4  # one part in four of a head's width


def _norm(name: str, model: ModelConfig) -> Weights:
    return (Weight(name, (model.dim,)), Weight(f"{name}_bias", (model.dim,)))


def _block(model: ModelConfig) -> Weights:
    """The outward biases are whole on every rank of tensor parallelism, the inward ones split."""
    dim, hidden = model.dim, model.ffn_hidden_dim
    return (
        *_norm("attention_norm", model),
        Weight("wqkv", (3 * dim, dim), split=0),
        Weight("wqkv_bias", (3 * dim,), split=0),
        Weight("wo", (dim, dim), split=1),
        Weight("wo_bias", (dim,)),
        *_norm("ffn_norm", model),
        Weight("w1", (hidden, dim), split=0),
        Weight("w1_bias", (hidden,), split=0),
        Weight("w2", (dim, hidden), split=1),
        Weight("w2_bias", (dim,)),
    )


def _head(model: ModelConfig) -> Weights:
    bias = Weight("norm_bias", (model.dim,))
    return (*llama.FAMILY.head(model), bias)


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode, as in `llama`."""
    if mode == "full":
        return llama.FAMILY.block_activation_bytes(model, batch, mode)
    return _kept_by_selective(model, batch) if mode == "selective" else _kept(model, batch)


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """Both norms save the one input, and mean and 1/deviation each; their gathered outputs feed
    wqkv and w1; attention saves q, k, v, its output (which is wo's input too) and log-sum-exp; GELU
    saves its input, w2 GELU's output; cosines and sines are float32."""
    split = 5 * model.dim + 2 * model.ffn_hidden_dim
    whole = 2 * model.dim
    values = (split / batch.tensor_parallel + whole) * batch.value_bytes
    float32 = (model.num_heads + 4) / batch.tensor_parallel + 2 * _rotary_dim(model)
    return batch.tokens * (values + float32 * _FLOAT32_BYTES)


def _kept_by_selective(model: ModelConfig, batch: Microbatch) -> float:
    """The block's input, attention's output and log-sum-exp, and the output of every matmul: with a
    bias it is one operator (addmm), which torchtitan's every-other-one does not count and so always
    saves (0.3.0, SelectiveAC). Those of wo and w2 are whole partial sums."""
    split = model.dim + model.dim + 3 * model.dim + model.ffn_hidden_dim
    values = (split / batch.tensor_parallel + 2 * model.dim) * batch.value_bytes
    log_sum_exp = model.num_heads / batch.tensor_parallel * _FLOAT32_BYTES
    return batch.tokens * (values + log_sum_exp)


def _block_working_bytes(model: ModelConfig, batch: Microbatch) -> float:
    """GELU's backward is the widest: gradients of its output and input, and of two inputs of the
    block's width."""
    values = 2 * model.ffn_hidden_dim / batch.tensor_parallel + 2 * model.dim
    return batch.tokens * values * batch.value_bytes


def _head_activation_bytes(model: ModelConfig, batch: Microbatch) -> float:
    """The final norm's input, mean and 1/deviation, and its gathered output."""
    norm = (model.dim * batch.value_bytes + 2 * _FLOAT32_BYTES) / batch.tensor_parallel
    return batch.tokens * (norm + model.dim * batch.value_bytes)


def _block_buffer_bytes(model: ModelConfig, sequence_length: int) -> int:
    """Every block has its own table of cosines and sines."""
    return sequence_length * 2 * _rotary_dim(model) * _FLOAT32_BYTES


def _rotary_dim(model: ModelConfig) -> int:
    return model.dim // model.num_heads // _ROTARY_SHARE


def _recomputed_share(model: ModelConfig, mode: str) -> float:  # noqa: ARG001
    """Selective computes no matmul again (see above)."""
    return 1.0 if mode == "full" else 0.0


FAMILY = replace(
    llama.FAMILY,
    block=_block,
    head=_head,
    block_activation_bytes=_block_activation_bytes,
    block_working_bytes=_block_working_bytes,
    head_activation_bytes=_head_activation_bytes,
    block_buffer_bytes=_block_buffer_bytes,
    recomputed_share=_recomputed_share,
)
