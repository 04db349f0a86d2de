"""Exact parameter counts, whole and per rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, prod

from pretrain_llm.contract.config import ModelConfig

from .families import Weight, Weights, family


@dataclass(frozen=True)
class Parameters:
    total: int
    embedding: int  # the input tables, and those of blocks
    non_embedding: int  # total without them
    in_matmuls: int  # what 6 N D counts: the table of tokens only where it is the output layer too


def parameters(model: ModelConfig) -> Parameters:
    shapes = family(model.architecture)
    tokens, *others = shapes.embedding(model)
    embedding = elements((tokens, *others)) + in_blocks(model, _table_elements)
    blocks = in_blocks(model, elements) - in_blocks(model, _table_elements)
    total = embedding + blocks + elements(shapes.head(model))
    return Parameters(
        total=total,
        embedding=embedding,
        non_embedding=total - embedding,
        in_matmuls=total - embedding + (tokens.elements if model.tie_embeddings else 0),
    )


def in_blocks(
    model: ModelConfig, count: Callable[[Weights], int], blocks: int | None = None
) -> int:
    """The sum over so many blocks, the model's last ones; over all by default."""
    shapes = family(model.architecture)
    number = model.num_layers if blocks is None else blocks
    return number * count(shapes.block(model)) + ceil(number / 2) * count(shapes.alternate(model))


def fullest_block(model: ModelConfig) -> Weights:
    shapes = family(model.architecture)
    return shapes.block(model) + shapes.alternate(model)


def matrices(weights: Weights) -> Weights:
    """What Muon takes, of a block's."""
    return tuple(weight for weight in weights if len(weight.shape) > 1 and not weight.is_table)


def _table_elements(weights: Weights) -> int:
    return sum(weight.elements for weight in weights if weight.is_table)


def elements(weights: Weights) -> int:
    return sum(weight.elements for weight in weights)


def gathered_elements(weights: Weights, tensor_parallel: int) -> int:
    """What a rank holds once FSDP2 has gathered the weights: its tensor-parallel part."""
    return sum(prod(_tensor_parallel_part(weight, tensor_parallel)) for weight in weights)


def sharded_elements(weights: Weights, tensor_parallel: int, shards: int) -> int:
    """What the first rank owns. FSDP2 splits the first dimension and pads the last shards.

    Source: torch.distributed.fsdp, FSDPParam._init_sharded_param.
    """
    parts = (_tensor_parallel_part(weight, tensor_parallel) for weight in weights)
    return sum(ceil(part[0] / shards) * prod(part[1:]) for part in parts)


def _tensor_parallel_part(weight: Weight, degree: int) -> tuple[int, ...]:
    if weight.split is None:
        return weight.shape
    return tuple(
        ceil(size / degree) if dimension == weight.split else size
        for dimension, size in enumerate(weight.shape)
    )
