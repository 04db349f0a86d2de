"""How pipeline parallelism spreads the blocks, as torchtitan does. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_llm.contract.config import RunConfig


@dataclass(frozen=True)
class Stage:
    """One pipeline stage; the whole model is stage 0 of 1."""

    number: int
    blocks: int
    has_embedding: bool
    has_head: bool
    microbatches_held: int  # forwards whose backward is still to come, at most


def stages(config: RunConfig) -> tuple[Stage, ...]:
    """1F1B, one stage a rank, a sequence a microbatch.

    Embedding and output layer count as one block each; what does not divide goes to the first
    stages. Source: torchtitan 0.3.0, distributed/pipeline_parallel.py.
    """
    count, blocks = config.parallelism.pipeline_parallel, config.model.num_layers
    if count == 1:
        return (Stage(0, blocks, True, True, 1),)
    least, extra = divmod(blocks + 2, count)
    sequences = config.training.local_batch_size
    return tuple(
        Stage(
            number=number,
            blocks=least + (number < extra) - (number in (0, count - 1)),
            has_embedding=number == 0,
            has_head=number == count - 1,
            microbatches_held=min(count - number, sequences),
        )
        for number in range(count)
    )
