"""nanochat of 2026 as pretrain_llm builds it: tables of value embeddings in every other block,
gates, scalars on the residual stream, sliding windows.

Sources: as in `llama`; what differs is derived from pretrain_llm/models/nanochat_2026.py, and
tests/llm/test_planner_memory.py compares it with the real model.
"""

from __future__ import annotations

from dataclasses import replace

from pretrain_llm.contract.config import ModelConfig

from . import llama, nanochat
from .family import Microbatch, Weight, Weights

_FLOAT32_BYTES = 4
_GATE_CHANNELS, _SMEAR_CHANNELS = 12, 24
_WINDOW_UNIT, _LONG_INTERVAL = 128, 4


def _block(model: ModelConfig) -> Weights:
    scalars = (Weight("residual_scale", (1,)), Weight("start_scale", (1,)))
    return (*nanochat.FAMILY.block(model), *scalars)


def _alternate(model: ModelConfig) -> Weights:
    return (
        Weight("value_embeddings", (model.vocab_size, llama.kv_dim(model)), is_table=True),
        Weight("value_gate", (model.num_kv_heads, min(_GATE_CHANNELS, model.dim))),
    )


def _head(model: ModelConfig) -> Weights:
    return (
        *nanochat.FAMILY.head(model),
        Weight("smear_gate", (1, min(_SMEAR_CHANNELS, model.dim))),
        Weight("smear_scale", (1,)),
        Weight("backout_scale", (1,)),
    )


def _block_activation_bytes(model: ModelConfig, batch: Microbatch, mode: str) -> float:
    """Bytes, by mode, as in `llama`; of values and gates, half, as every other block has them."""
    if mode == "full":
        return llama.FAMILY.block_activation_bytes(model, batch, mode)
    return _kept_by_selective(model, batch) if mode == "selective" else _kept(model, batch)


def _kept(model: ModelConfig, batch: Microbatch) -> float:
    """As October's; and the stream before it is mixed, whose scalar wants it. With a table: its
    rows, and the gates before and after they are scaled."""
    mixed = model.dim
    values = (llama.kv_dim(model) + 2 * model.num_kv_heads) / 2
    october = nanochat.FAMILY.block_activation_bytes(model, batch, "none")
    return october + batch.tokens * (mixed + values) * batch.value_bytes


def _kept_by_selective(model: ModelConfig, batch: Microbatch) -> float:
    """The block's input, attention's output and log-sum-exp, and every other matmul's output, the
    first of four saved: wqkv and w1; with a gate, the first of five: wqkv, wo and w2."""
    without = model.ffn_hidden_dim
    with_gate = 2 * model.dim
    kept = 3 * model.dim + 2 * llama.kv_dim(model) + (without + with_gate) / 2
    log_sum_exp = model.num_heads * _FLOAT32_BYTES
    return batch.tokens * (kept * batch.value_bytes + log_sum_exp)


def _head_activation_bytes(model: ModelConfig, batch: Microbatch) -> float:
    """Beside October's: what the embedding's norm reads, its output twice (smeared and rolled), and
    the stream before the backout."""
    started = 4 * model.dim * batch.value_bytes
    return nanochat.FAMILY.head_activation_bytes(model, batch) + batch.tokens * started


def _recomputed_share(model: ModelConfig, mode: str) -> float:
    """Selective computes wo and w2 again; in a block with a gate, that and w1."""
    if mode != "selective":
        return llama.FAMILY.recomputed_share(model, mode)
    without = model.dim * (model.dim + model.ffn_hidden_dim)
    with_gate = model.dim * model.ffn_hidden_dim
    matmuls = sum(weight.elements for weight in nanochat.FAMILY.block(model))
    return (without + with_gate) / 2 / matmuls


def _attention_flops(model: ModelConfig, sequence_length: int) -> float:
    """As in `llama`, each block within its window."""
    short = -(-sequence_length // 4 // _WINDOW_UNIT) * _WINDOW_UNIT
    blocks = range(1, model.num_layers + 1)
    long = sum(block % _LONG_INTERVAL == 0 or block == model.num_layers for block in blocks)
    seen = long * sequence_length + (model.num_layers - long) * min(short, sequence_length)
    return 12.0 * model.dim * seen


FAMILY = replace(
    nanochat.FAMILY,
    block=_block,
    alternate=_alternate,
    head=_head,
    block_activation_bytes=_block_activation_bytes,
    head_activation_bytes=_head_activation_bytes,
    recomputed_share=_recomputed_share,
    attention_flops=_attention_flops,
)
