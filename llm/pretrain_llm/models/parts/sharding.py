"""Tensor parallelism of a block whose feed-forward has two matrices, after torchtitan's for Llama.

`in_sequence`: residual stream and norms are split along the sequence between the matrices.
"""

from __future__ import annotations

from typing import Any

import spmd_types as spmd
from torchtitan.models.common.decoder_sharding import (
    colwise_config,
    dense_activation_placement,
    dense_sequence_parallel_placement,
    norm_config,
    set_gqa_attention_sharding,
    set_gqa_inner_attention_local_map,
)
from torchtitan.protocols.sharding import ShardingConfig


def set_block_sharding(block: Any, rowwise: ShardingConfig, in_sequence: bool) -> None:
    """`rowwise` is that of wo and w2."""
    for norm in (block.attention_norm, block.ffn_norm):
        norm.sharding_config = norm_config(enable_sp=in_sequence)
    set_gqa_attention_sharding(block.attention, enable_sp=in_sequence)
    set_gqa_inner_attention_local_map(block.attention.inner_attention)
    block.attention.wo.sharding_config = rowwise
    block.feed_forward.sharding_config = ShardingConfig(
        in_src_shardings={"x": _stream(in_sequence)},
        in_dst_shardings={"x": dense_activation_placement(tp=spmd.R)},
    )
    block.feed_forward.w1.sharding_config = colwise_config()
    block.feed_forward.w2.sharding_config = rowwise


def _stream(in_sequence: bool) -> Any:
    if in_sequence:
        return dense_sequence_parallel_placement()
    return dense_activation_placement(tp=spmd.I)
