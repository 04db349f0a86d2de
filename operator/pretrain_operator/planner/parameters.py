"""Exact parameter counts, whole and per rank."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from pretrain_llm.contract.config import ModelConfig

from .families import Weight, Weights, family


@dataclass(frozen=True)
class Parameters:
    total: int
    embedding: int  # the input tables
    non_embedding: int  # total without them
    in_matmuls: int  # what 6 N D counts: the table of tokens only where it is the output layer too


def parameters(model: ModelConfig) -> Parameters:
    shapes = family(model.architecture)
    tokens, *others = shapes.embedding(model)
    embedding = elements((tokens, *others))
    blocks = model.num_layers * elements(shapes.block(model))
    total = embedding + blocks + elements(shapes.head(model))
    return Parameters(
        total=total,
        embedding=embedding,
        non_embedding=total - embedding,
        in_matmuls=total - (elements(tuple(others)) if model.tie_embeddings else embedding),
    )


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
