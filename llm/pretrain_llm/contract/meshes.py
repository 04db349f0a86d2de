"""The mesh of a run on fewer nodes than it asks for: pure, the same for operator and workers.

Only data parallelism gives way: tensor, pipeline and context degrees split the model or a sequence,
and stay. The global batch stays too, so that a step trains the same samples whatever the number of
nodes is; what a rank takes at once, and how often, adapts.

    global batch = data-parallel ranks x local batch x accumulation
"""

from __future__ import annotations

import math
from dataclasses import replace

from .config import AnyConfig, RunConfig, ScriptRunConfig, TrainingConfig
from .curriculum import segments

# Tokens of a block of FlexAttention's masks, which are cut between blocks alone. Source: torch
# 2.15, torch.distributed.tensor.experimental._context_parallel, _create_cp_block_mask.
CONTEXT_BLOCK = 128


def context_unit(context_parallel: int, tensor_parallel: int) -> int:
    """Tokens of which a sequence must be a multiple: blocks stay whole, and each rank's two pieces,
    one from the head and one from the tail, split among its tensor-parallel ranks."""
    if context_parallel == 1:
        return 1
    return context_parallel * math.lcm(CONTEXT_BLOCK, 2 * tensor_parallel)


def on_nodes(run: RunConfig, nodes: int) -> RunConfig | None:
    """`run` with the degrees and the local batch of `nodes` nodes; None: no mesh is legal there.

    `run` itself where `nodes` is its count. No rank takes more sequences at once than in `run`.
    It holds more of the model only where there are fewer ranks than shards.
    """
    ranks = data_parallel_ranks(run, nodes)
    sizes = _local_batch_sizes(run, ranks)
    if not all(sizes):
        return None
    shards = _shards(ranks, run.parallelism.data_parallel_shard)
    return replace(
        run,
        training=_with_local_batches(run, sizes),
        parallelism=replace(
            run.parallelism,
            data_parallel_replicate=ranks // shards,
            data_parallel_shard=shards,
        ),
    )


def on_ranks(run: RunConfig, world_size: int) -> RunConfig:
    """`run` as a worker of a round with `world_size` ranks trains it.

    Unchanged where the run allows no such round: `preconditions` says what is wrong.
    """
    nodes, rest = divmod(world_size, run.nodes.devices_per_node)
    if rest or not (run.nodes.min or run.nodes.count) <= nodes < run.nodes.count:
        return run
    return on_nodes(run, nodes) or run


def fewer_nodes(run: AnyConfig) -> tuple[int, ...]:
    """The numbers of nodes that the run may shrink to, largest first. A script has no mesh."""
    fewest = run.nodes.min or run.nodes.count
    counts = range(run.nodes.count - 1, fewest - 1, -1)
    if isinstance(run, ScriptRunConfig):
        return tuple(counts)
    return tuple(
        nodes for nodes in counts if all(_local_batch_sizes(run, data_parallel_ranks(run, nodes)))
    )


def data_parallel_ranks(run: RunConfig, nodes: int) -> int:
    """Groups of ranks that take samples of their own; 0 where the model does not fit evenly."""
    groups, rest = divmod(nodes * run.nodes.devices_per_node, run.parallelism.model_ranks)
    return 0 if rest else groups


def _with_local_batches(run: RunConfig, sizes: tuple[int, ...]) -> TrainingConfig:
    """`sizes` are of the segments, the first the run's own."""
    if sizes == tuple(segment.run.training.local_batch_size for segment in segments(run)):
        return run.training
    changes = zip(run.training.curriculum, sizes[1:], strict=True)
    return replace(
        run.training,
        local_batch_size=sizes[0],
        curriculum=tuple(replace(segment, local_batch_size=size) for segment, size in changes),
    )


def _local_batch_sizes(run: RunConfig, ranks: int) -> tuple[int, ...]:
    return tuple(_local_batch_size(segment.run, ranks) for segment in segments(run))


def _local_batch_size(run: RunConfig, ranks: int) -> int:
    """The most sequences that fit at once and fill the share of a rank evenly; 0: none do.

    A pipeline keeps the number that its schedule was made for.
    """
    batch, most = run.training.global_batch_size, run.training.local_batch_size
    if not ranks or batch % ranks:
        return 0
    share = batch // ranks
    fewest = most if run.parallelism.pipeline_parallel > 1 else 1
    return next((size for size in range(min(most, share), fewest - 1, -1) if share % size == 0), 0)


def _shards(ranks: int, wanted: int) -> int:
    """The fewest that divide `ranks` and are at least `wanted`; all ranks where they are fewer."""
    return next((shards for shards in range(wanted, ranks) if ranks % shards == 0), ranks)
