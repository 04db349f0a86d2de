"""What the planner must know of an architecture: its weights, and what one block keeps.

Nothing about meshes: `split` and the microbatch's degree are all that a family knows of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from pretrain_llm.contract.config import ModelConfig


@dataclass(frozen=True)
class Weight:
    name: str
    shape: tuple[int, ...]
    split: int | None = None  # dimension that tensor parallelism divides; None: replicated
    is_table: bool = False  # of a block: looked up by token, in no matmul and not Muon's

    @property
    def elements(self) -> int:
        return prod(self.shape)


Weights = tuple[Weight, ...]


def nothing(model: ModelConfig) -> Weights:  # noqa: ARG001
    return ()


@dataclass(frozen=True)
class Microbatch:
    """What one rank computes at once."""

    tokens: int  # a context-parallel rank's, before sequence parallelism divides them
    value_bytes: int  # 2 for bfloat16, 4 for float32
    tensor_parallel: int


@dataclass(frozen=True)
class Family:
    """Functions of the shapes. Bytes are those of one rank and one microbatch."""

    embedding: Callable[[ModelConfig], Weights]
    """The table of tokens first."""
    block: Callable[[ModelConfig], Weights]
    """What every block has."""
    head: Callable[[ModelConfig], Weights]
    """Final norm and, unless it is the embedding, the output layer."""

    block_activation_bytes: Callable[[ModelConfig, Microbatch, str], float]
    """Kept from a block's forward to its backward; the last argument is the spec's mode."""
    block_working_bytes: Callable[[ModelConfig, Microbatch], float]
    """Gradients of activations that live at once in a block's backward."""
    head_activation_bytes: Callable[[ModelConfig, Microbatch], float]
    """Kept between the last block and the logits."""
    block_buffer_bytes: Callable[[ModelConfig, int], int]
    """Tables that are no parameters, for a sequence length."""
    recomputed_share: Callable[[ModelConfig, str], float]
    """Of a block's forward matmuls, by mode of activation checkpointing."""
    attention_flops: Callable[[ModelConfig, int], float]
    """Of scores and values, forward and backward, a token, for a sequence length."""

    alternate: Callable[[ModelConfig], Weights] = nothing
    """What every other block, the last one among them, has beside. Bytes of activations are then
    the mean of two blocks. None in a family that pipelines may cut."""
