"""Which meshes are legal on a run's devices, what they communicate, and the best that fits.

A search over all legal degrees, local batches and modes of activation checkpointing; the world and
the global batch stay. The cost is a ranking, not a forecast: bytes over bandwidths, no latency.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from pretrain_llm.contract.config import UNSPLIT, RunConfig
from pretrain_llm.contract.curriculum import segments
from pretrain_llm.contract.meshes import context_unit

from .assumptions import Assumptions
from .compute import ComputePlan, bubble_share, world_size
from .families import family
from .memory import (
    VALUE_BYTES,
    MemoryPlan,
    accumulation,
    gathered_context_bytes,
    memory_plan,
    microbatch,
)
from .parameters import gathered_elements, in_blocks

_MODES = ("none", "selective", "full")
_FORWARD_SHARE = 1 / 3  # of 6 N D
_REDUCE_BYTES = 4
_FEWEST_TOKENS = 4096  # of a sequence on a context-parallel rank, to be suggested


@dataclass(frozen=True)
class MeshCost:
    """Seconds a step. `exposed` is what computing cannot hide."""

    tensor_seconds: float
    context_seconds: float
    shard_seconds: float
    replicate_seconds: float
    bubble_seconds: float
    recompute_seconds: float
    exposed_seconds: float

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better; what is hidden decides between equals."""
        return (self.exposed_seconds, self.shard_seconds + self.replicate_seconds)


@dataclass(frozen=True)
class Suggestion:
    config: RunConfig
    memory: MemoryPlan
    cost: MeshCost
    accumulation: int


def suggestion(
    config: RunConfig, compute: ComputePlan, assumptions: Assumptions
) -> Suggestion | None:
    """The cheapest mesh that fits; None where none does."""
    best: Suggestion | None = None
    for candidate in legal_configs(config):
        if not _divides_segments(candidate):
            continue
        cost = mesh_cost(candidate, compute.step_seconds, assumptions)
        if best is not None and cost.rank >= best.cost.rank:
            continue
        memory = memory_plan(candidate, assumptions)
        if memory.fits:
            best = Suggestion(candidate, memory, cost, accumulation(candidate))
    return best


def _divides_segments(config: RunConfig) -> bool:
    """Whether a curriculum's later batches and lengths divide too; a search varies the first."""
    mesh = config.parallelism
    ranks = mesh.data_parallel_replicate * mesh.data_parallel_shard
    return all(
        training.global_batch_size % (ranks * training.local_batch_size) == 0
        and training.sequence_length % mesh.tensor_parallel == 0
        and training.sequence_length % context_unit(mesh.context_parallel, mesh.tensor_parallel)
        == 0
        and (mesh.pipeline_parallel == 1 or training.local_batch_size >= mesh.pipeline_parallel)
        for training in (segment.run.training for segment in segments(config)[1:])
    )


def legal_configs(config: RunConfig) -> Iterator[RunConfig]:
    """Every mesh that the API's rules and torchtitan allow for this world and global batch."""
    for tensor in _divisors(config.nodes.devices_per_node):
        if tensor > 1 and not _splits_model(config, tensor):
            continue
        for pipeline in _divisors(world_size(config) // tensor):
            if pipeline > 1 and not _cuts_model(config, pipeline):
                continue
            for context in _contexts(config, tensor, world_size(config) // (tensor * pipeline)):
                yield from _data_parallel(config, tensor, pipeline, context)


def _contexts(config: RunConfig, tensor: int, ranks: int) -> Iterator[int]:
    """Degrees that leave a rank enough tokens of a sequence to be worth their messages."""
    length, is_whole = config.training.sequence_length, config.model.architecture in UNSPLIT
    for context in (1,) if is_whole else _divisors(ranks):
        is_worth_it = context == 1 or length // context >= _FEWEST_TOKENS
        if is_worth_it and length % context_unit(context, tensor) == 0:
            yield context


def _cuts_model(config: RunConfig, pipeline: int) -> bool:
    model = config.model
    is_whole = model.tie_embeddings or model.architecture in UNSPLIT
    return not is_whole and pipeline <= model.num_layers


def _splits_model(config: RunConfig, tensor: int) -> bool:
    """Heads by the API's rule; the sequence because torchtitan's sequence parallelism is on."""
    model = config.model
    if model.architecture in UNSPLIT or config.training.optimizer.name == "Muon":
        return False
    split = (
        model.num_heads,
        model.num_kv_heads,
        model.ffn_hidden_dim,
        model.vocab_size,
        config.training.sequence_length,
    )
    return not any(size % tensor for size in split)


def _data_parallel(
    config: RunConfig, tensor: int, pipeline: int, context: int
) -> Iterator[RunConfig]:
    ranks = world_size(config) // (tensor * pipeline * context)
    if config.training.global_batch_size % ranks:
        return
    for shard in _divisors(ranks):
        mesh = replace(
            config.parallelism,
            data_parallel_replicate=ranks // shard,
            data_parallel_shard=shard,
            tensor_parallel=tensor,
            pipeline_parallel=pipeline,
            context_parallel=context,
        )
        for sequences in _divisors(config.training.global_batch_size // ranks):
            for mode in _MODES:
                training = replace(
                    config.training, local_batch_size=sequences, activation_checkpointing=mode
                )
                yield replace(config, parallelism=mesh, training=training)


@lru_cache(maxsize=1024)
def _divisors(number: int) -> tuple[int, ...]:
    small = [divisor for divisor in range(1, int(number**0.5) + 1) if number % divisor == 0]
    return tuple(sorted({*small, *(number // divisor for divisor in small)}))


def mesh_cost(config: RunConfig, compute_seconds: float, assumptions: Assumptions) -> MeshCost:
    """`compute_seconds` is a step's without recomputing. FSDP's collectives run beside computing;
    tensor and context parallelism's and the pipeline's bubble are waited for."""
    tensor = _tensor_seconds(config, assumptions)
    context = _context_seconds(config, assumptions)
    shard = _shard_seconds(config, assumptions)
    replicate = _replicate_seconds(config, assumptions)
    bubble = bubble_share(config) * compute_seconds
    recompute = _recompute_share(config) * compute_seconds
    hidden = compute_seconds + recompute
    exposed = tensor + context + bubble + recompute + max(0.0, shard + replicate - hidden)
    return MeshCost(tensor, context, shard, replicate, bubble, recompute, exposed)


def _recompute_share(config: RunConfig) -> float:
    shapes, mode = family(config.model.architecture), config.training.activation_checkpointing
    return _FORWARD_SHARE * shapes.recomputed_share(config.model, mode)


def _bandwidth(config: RunConfig, span: int, assumptions: Assumptions) -> float:
    """Of a group whose ranks span so many consecutive ones: within a node, or across."""
    within = span <= config.nodes.devices_per_node
    return assumptions.node_bytes_per_second if within else assumptions.network_bytes_per_second


def _tensor_seconds(config: RunConfig, assumptions: Assumptions) -> float:
    """Four gathers or scatters of the residual stream a block, forward, and as many backward;
    full recomputing repeats the forward's. Source: Korthikanti et al. 2022, section 4.2.2."""
    degree = config.parallelism.tensor_parallel
    if degree == 1:
        return 0.0
    training, batch = config.training, microbatch(config)
    passes = 4 + 4 + (4 if training.activation_checkpointing == "full" else 0)
    sent = _rank_tokens(config) * config.model.dim * batch.value_bytes * (degree - 1) / degree
    blocks = config.model.num_layers / config.parallelism.pipeline_parallel
    return passes * blocks * sent / _bandwidth(config, degree, assumptions)


def _rank_tokens(config: RunConfig) -> float:
    """Of a step, before tensor parallelism divides them."""
    training = config.training
    sequences = training.local_batch_size * accumulation(config)
    return sequences * training.sequence_length / config.parallelism.context_parallel


def _context_seconds(config: RunConfig, assumptions: Assumptions) -> float:
    """Keys and values gathered in each block's forward, and again where it is recomputed, their
    gradients scattered in its backward."""
    mesh, training = config.parallelism, config.training
    if mesh.context_parallel == 1:
        return 0.0
    passes = 2 if training.activation_checkpointing == "none" else 3
    one = replace(microbatch(config), tokens=1)
    received = _rank_tokens(config) * gathered_context_bytes(config, one)
    blocks = config.model.num_layers / mesh.pipeline_parallel
    span = mesh.context_parallel * mesh.tensor_parallel
    return passes * blocks * received / _bandwidth(config, span, assumptions)


def _shard_seconds(config: RunConfig, assumptions: Assumptions) -> float:
    """Weights gathered forward and backward, gradients scattered, each accumulation step; in a
    pipeline once a step."""
    mesh, value = config.parallelism, VALUE_BYTES[config.training.precision]
    shards = mesh.shards
    is_pipeline = mesh.pipeline_parallel > 1
    per_element = (value if is_pipeline else 2 * value) + _REDUCE_BYTES
    sent = _rank_elements(config) * per_element * (shards - 1) / shards
    passes = accumulation(config)
    return passes * sent / _bandwidth(config, shards * mesh.tensor_parallel, assumptions)


def _replicate_seconds(config: RunConfig, assumptions: Assumptions) -> float:
    """An all-reduce of the shard's gradients, each accumulation step."""
    mesh = config.parallelism
    replicas = mesh.data_parallel_replicate
    shard_bytes = _REDUCE_BYTES * _rank_elements(config) / mesh.shards
    sent = 2 * shard_bytes * (replicas - 1) / replicas
    span = replicas * mesh.shards * mesh.tensor_parallel
    return accumulation(config) * sent / _bandwidth(config, span, assumptions)


def _rank_elements(config: RunConfig) -> float:
    """Parameters of a tensor-parallel part of a mean pipeline stage."""
    shapes, model, mesh = (
        family(config.model.architecture),
        config.model,
        config.parallelism,
    )
    ends = shapes.embedding(model) + shapes.head(model)
    total = in_blocks(model, lambda each: gathered_elements(each, mesh.tensor_parallel))
    total += gathered_elements(ends, mesh.tensor_parallel)
    return total / mesh.pipeline_parallel
