"""The mesh on fewer nodes: what may give way, what may not, and which counts are legal."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from pretrain_llm.contract import meshes
from pretrain_llm.contract.config import ParallelismConfig, RunConfig, SegmentConfig
from pretrain_llm.contract.curriculum import segments
from pretrain_operator.config import run_config

from .runs import demo_run


def run(
    count: int,
    devices: int = 1,
    *,
    batch: int = 48,
    local: int | None = None,
    fewest: int | None = 1,
    mesh: tuple[int, ...] | None = None,
) -> RunConfig:
    """`mesh`: replicate, shard, tensor, pipeline and, maybe, context; all ranks shard where it is
    left out."""
    base = run_config(demo_run())
    degrees = ParallelismConfig(*(mesh or (1, count * devices, 1, 1)))
    ranks = degrees.data_parallel_replicate * degrees.data_parallel_shard
    nodes = replace(base.nodes, count=count, devices_per_node=devices, min=fewest)
    training = replace(
        base.training, global_batch_size=batch, local_batch_size=local or batch // ranks
    )
    return replace(base, nodes=nodes, training=training, parallelism=degrees)


@pytest.mark.parametrize(
    ("whole", "nodes", "expected"),
    [
        pytest.param(run(4), 2, (1, 2, 1, 1, 12), id="fewer shards, each of more"),
        pytest.param(run(4), 3, (1, 3, 1, 1, 8), id="16 each: 12 do not divide it, 8 do"),
        pytest.param(run(4, local=3), 1, (1, 1, 1, 1, 3), id="accumulates more"),
        pytest.param(run(4, mesh=(2, 2, 1, 1)), 2, (1, 2, 1, 1, 12), id="a replica goes first"),
        pytest.param(run(4, mesh=(2, 2, 1, 1)), 3, (1, 3, 1, 1, 8), id="never fewer shards there"),
        pytest.param(run(4, 2, mesh=(4, 2, 1, 1)), 3, (3, 2, 1, 1, 4), id="replicas of two shards"),
        pytest.param(run(4, mesh=(4, 1, 1, 1)), 2, (2, 1, 1, 1, 12), id="replicas only"),
        pytest.param(run(4, 4, mesh=(1, 4, 4, 1)), 3, (1, 3, 4, 1, 8), id="tensor stays"),
        pytest.param(run(4, mesh=(1, 2, 2, 1)), 3, None, id="half a tensor group"),
        pytest.param(run(4, mesh=(1, 2, 1, 2)), 2, (1, 1, 1, 2, 24), id="pipeline stays"),
        pytest.param(run(4, 2, mesh=(1, 4, 1, 1, 2)), 3, (1, 3, 1, 1, 8), id="context stays"),
        pytest.param(run(4, mesh=(1, 2, 1, 1, 2)), 3, None, id="half a context group"),
        pytest.param(run(4, 2, mesh=(1, 4, 1, 2)), 3, None, id="16 each: no 12 for its schedule"),
        pytest.param(run(4, batch=16), 3, None, id="the batch does not divide by 3"),
        pytest.param(run(4, mesh=(1, 1, 4, 1)), 2, None, id="nothing to give way"),
    ],
)
def test_mesh_on_fewer_nodes(
    whole: RunConfig, nodes: int, expected: tuple[int, ...] | None
) -> None:
    fewer = meshes.on_nodes(whole, nodes)
    found = fewer and (
        fewer.parallelism.data_parallel_replicate,
        fewer.parallelism.data_parallel_shard,
        fewer.parallelism.tensor_parallel,
        fewer.parallelism.pipeline_parallel,
        fewer.training.local_batch_size,
    )
    assert found == expected


WHOLE = [
    run(count, devices, batch=batch, mesh=(replicate, shard, tensor, 1))
    for count, devices, batch, replicate, tensor in product(
        (2, 3, 4, 6, 8), (1, 2, 8), (48, 96, 240), (1, 2), (1, 2)
    )
    if (shard := count * devices // (replicate * tensor))
    and replicate * shard * tensor == count * devices
    and batch % (replicate * shard) == 0
]


def test_mesh_whatever_the_nodes_trains_the_same_batch() -> None:
    """The property that shrinking rests on, over all counts of many runs."""
    checked = 0
    for whole in WHOLE:
        assert meshes.on_nodes(whole, whole.nodes.count) == whole
        for nodes in meshes.fewer_nodes(whole):
            fewer = meshes.on_nodes(whole, nodes)
            assert fewer is not None
            batch = fewer.training.global_batch_size
            share, rest = divmod(batch, data_ranks(fewer))  # data.packed gives each rank its share
            assert (batch, rest) == (whole.training.global_batch_size, 0)
            assert share % fewer.training.local_batch_size == 0
            assert replace(fewer, training=whole.training, parallelism=whole.parallelism) == whole
            assert ranks(fewer) == nodes * whole.nodes.devices_per_node
            assert fewer.training.local_batch_size <= whole.training.local_batch_size
            shards = fewer.parallelism.data_parallel_shard
            assert shards >= min(whole.parallelism.data_parallel_shard, data_ranks(fewer))
            checked += 1
    assert checked > 100


def data_ranks(config: RunConfig) -> int:
    mesh = config.parallelism
    return mesh.data_parallel_replicate * mesh.data_parallel_shard


def ranks(config: RunConfig) -> int:
    mesh = config.parallelism
    return (
        data_ranks(config) * mesh.tensor_parallel * mesh.pipeline_parallel * mesh.context_parallel
    )


@pytest.mark.parametrize(
    ("context", "tensor", "unit"),
    [
        pytest.param(1, 8, 1, id="nothing is cut"),
        pytest.param(2, 1, 256, id="whole blocks of 128"),
        pytest.param(8, 8, 1024, id="16 divides 128"),
        pytest.param(2, 96, 768, id="two pieces for each of 96"),
    ],
)
def test_sequence_is_cut_between_blocks(context: int, tensor: int, unit: int) -> None:
    assert meshes.context_unit(context, tensor) == unit


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        pytest.param(run(8, batch=16, fewest=1), (4, 2, 1), id="divisors of the batch"),
        pytest.param(run(8, batch=16, fewest=2), (4, 2), id="not below min"),
        pytest.param(run(8, batch=16, fewest=None), (), id="no min: never fewer"),
        pytest.param(run(4, fewest=3, batch=16), (), id="a min that is none itself"),
    ],
)
def test_fewer_nodes(whole: RunConfig, expected: tuple[int, ...]) -> None:
    assert meshes.fewer_nodes(whole) == expected


@pytest.mark.parametrize(
    ("whole", "world_size", "data_ranks_then"),
    [
        pytest.param(run(4), 2, 2, id="a round of two nodes"),
        pytest.param(run(4), 4, 4, id="a whole round"),
        pytest.param(run(4, fewest=2), 1, 4, id="below min: left as it is, and refused"),
        pytest.param(run(4, 2), 3, 8, id="half a node: the same"),
        pytest.param(run(4), 8, 4, id="more than it asks for: the same"),
    ],
)
def test_ranks_of_a_round(whole: RunConfig, world_size: int, data_ranks_then: int) -> None:
    assert data_ranks(meshes.on_ranks(whole, world_size)) == data_ranks_then


def test_every_segment_of_a_curriculum_fits_fewer_nodes() -> None:
    whole = run(4)
    later = SegmentConfig(10, global_batch_size=32, local_batch_size=8)
    whole = replace(whole, training=replace(whole.training, curriculum=(later,)))
    assert meshes.on_nodes(whole, 4) == whole
    assert meshes.fewer_nodes(whole) == (2, 1), "32 do not divide by 3"
    fewer = meshes.on_nodes(whole, 2)
    assert fewer
    sizes = [segment.run.training.local_batch_size for segment in segments(fewer)]
    assert sizes == [12, 8]
