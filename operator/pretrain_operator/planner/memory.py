"""Bytes on the fullest device, part by part, at the moments of a step that can be its peak.

What training/titan.py does: FSDP2 keeps float32 weights, gradients and AdamW moments in shards,
gathers each block in the compute precision and reduces gradients in float32; cross entropy is not
chunked; no CUDA graphs. torch.compile keeps less than planned here: the plan is of eager execution.
Communication is an upper bound: when buffers are freed depends on the streams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.curriculum import segments

from .assumptions import GIB, Assumptions
from .families import Microbatch, Weights, family
from .parameters import (
    Parameters,
    elements,
    fullest_block,
    gathered_elements,
    in_blocks,
    matrices,
    sharded_elements,
)
from .stages import Stage, stages

_MASTER_BYTES = 4  # float32 weights, gradients, each of AdamW's two moments (Loshchilov & Hutter)
_REDUCE_BYTES = 4  # torchtitan's mixed_precision_reduce is float32
VALUE_BYTES = {"bfloat16": 2, "float32": 4}
# Float32 copies of the logits that live at once in the loss's backward: log-softmax, the gradients
# of the negative log-likelihood and of log-softmax (torch's cross_entropy); with tensor parallelism
# torchtitan's _LossParallelCrossEntropy has four.
_LOGIT_COPIES, _PARALLEL_LOGIT_COPIES = 3, 4
_Z_LOSS_COPIES = 2  # its own float32 logits, and their gradient


@dataclass(frozen=True)
class Moment:
    """What is there beside weights and optimiser state."""

    name: str
    gradients_bytes: float
    activations_bytes: float
    logits_bytes: float
    communication_bytes: float  # gathered weights, unreduced gradients

    @property
    def total_bytes(self) -> float:
        return (
            self.gradients_bytes
            + self.activations_bytes
            + self.logits_bytes
            + self.communication_bytes
        )


@dataclass(frozen=True)
class MemoryPlan:
    """Of one device of the fullest pipeline stage."""

    stage: int
    weights_bytes: float
    optimizer_bytes: float
    buffers_bytes: float
    peak: Moment
    moments: tuple[Moment, ...]
    allocated_bytes: float  # what torch.cuda.max_memory_allocated would say
    margin_bytes: float  # fragmentation, CUDA context, NCCL
    device_bytes: float

    @property
    def total_bytes(self) -> float:
        return self.allocated_bytes + self.margin_bytes

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.device_bytes


def memory_plan(config: RunConfig, assumptions: Assumptions) -> MemoryPlan:
    """The fullest stage decides: the first holds most microbatches, the last the logits. Of a
    curriculum, the fullest segment."""
    plans = [
        stage_plan(segment.run, stage, assumptions)
        for segment in segments(config)
        for stage in _extremes(stages(config))
    ]
    return max(plans, key=lambda plan: plan.allocated_bytes)


def state_bytes(config: RunConfig) -> float:
    """What one device keeps in a checkpoint: weights and moments, of the fullest stage."""
    return max(
        float(_MASTER_BYTES * _owned_elements(config, stage) + _optimizer_bytes(config, stage))
        for stage in _extremes(stages(config))
    )


def checkpoint_bytes(config: RunConfig, counts: Parameters) -> int:
    """Of the whole model: weights and moments, float32."""
    values = 3 * counts.total
    if config.training.optimizer.name == "Muon":
        values -= in_blocks(config.model, lambda weights: elements(matrices(weights)))
    return _MASTER_BYTES * values


def microbatch(config: RunConfig) -> Microbatch:
    """A pipeline's microbatch is one sequence, of which a rank has the context-parallel part."""
    training, parallelism = config.training, config.parallelism
    sequences = training.local_batch_size if parallelism.pipeline_parallel == 1 else 1
    return Microbatch(
        tokens=sequences * training.sequence_length // parallelism.context_parallel,
        value_bytes=VALUE_BYTES[training.precision],
        tensor_parallel=parallelism.tensor_parallel,
    )


def accumulation(config: RunConfig) -> int:
    """Forward and backward passes of a local batch in one step."""
    training, mesh = config.training, config.parallelism
    ranks = mesh.data_parallel_replicate * mesh.data_parallel_shard
    return training.global_batch_size // (training.local_batch_size * ranks)


def _extremes(all_stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """First, second and last: the others have no more blocks, microbatches or tables than these."""
    return tuple(dict.fromkeys((*all_stages[:2], all_stages[-1])))


def stage_plan(config: RunConfig, stage: Stage, assumptions: Assumptions) -> MemoryPlan:
    """Of one device of one pipeline stage."""
    shapes = family(config.model.architecture)
    master = _MASTER_BYTES * _owned_elements(config, stage)
    buffer = shapes.block_buffer_bytes(config.model, config.training.sequence_length)
    moments = _moments(config, stage, master)
    peak = max(moments, key=lambda moment: moment.total_bytes)
    optimizer = _optimizer_bytes(config, stage)
    allocated = master + optimizer + buffer * stage.blocks + peak.total_bytes
    return MemoryPlan(
        stage=stage.number,
        weights_bytes=master,
        optimizer_bytes=optimizer,
        buffers_bytes=buffer * stage.blocks,
        peak=peak,
        moments=moments,
        allocated_bytes=allocated,
        margin_bytes=assumptions.fragmentation * allocated + assumptions.context_gib * GIB,
        device_bytes=assumptions.device_bytes,
    )


def _owned_elements(config: RunConfig, stage: Stage) -> int:
    """Of the first rank's shards; the other ranks have no more."""
    mesh = config.parallelism
    return _stage_elements(
        config,
        stage,
        lambda weights: sharded_elements(weights, mesh.tensor_parallel, mesh.shards),
    )


def _optimizer_bytes(config: RunConfig, stage: Stage) -> float:
    """AdamW has two moments; Muon one, of the blocks' matrices."""
    owned = _owned_elements(config, stage)
    if config.training.optimizer.name != "Muon":
        return 2.0 * _MASTER_BYTES * owned
    mesh = config.parallelism
    by_muon = in_blocks(
        config.model,
        lambda weights: sharded_elements(matrices(weights), mesh.tensor_parallel, mesh.shards),
        stage.blocks,
    )
    return _MASTER_BYTES * (2.0 * owned - by_muon)


def _orthogonalising_bytes(config: RunConfig) -> float:
    """The largest matrix while Muon has it whole: sent, received, the iteration's operands and
    result, in bfloat16. Source: training/muon.py."""
    if config.training.optimizer.name != "Muon":
        return 0.0
    return 6.0 * 2 * max(weight.elements for weight in matrices(fullest_block(config.model)))


def _stage_elements(config: RunConfig, stage: Stage, count: Callable[[Weights], int]) -> int:
    shapes, model = family(config.model.architecture), config.model
    total = in_blocks(model, count, stage.blocks)
    if stage.has_embedding:
        total += count(shapes.embedding(model))
    return total + count(shapes.head(model)) if stage.has_head else total


def _moments(config: RunConfig, stage: Stage, gradients: float) -> tuple[Moment, ...]:
    """Loss: all activations and the logits. Backward: all activations while the last block, whose
    backward is the first, is computed again and reduced. Step: all gradients."""
    batch = microbatch(config)
    kept = _kept_activations(config, stage, batch)
    again = _recomputed_activations(config, batch)
    held = gradients if _holds_gradients(config) else 0.0
    gathered = _Gathered.of(config, stage)
    at_end = max(gathered.at_end, _orthogonalising_bytes(config))
    return (
        Moment("loss", held, kept, _logits(config, stage, batch), gathered.at_loss),
        Moment("backward", max(held, gathered.head_shard), kept + again, 0.0, gathered.at_backward),
        Moment("step", gradients, 0.0, 0.0, at_end),
    )


def _holds_gradients(config: RunConfig) -> bool:
    """Gradients are dropped after each step; only accumulation finds some of an earlier pass."""
    return accumulation(config) > 1 and config.parallelism.pipeline_parallel == 1


def _kept_activations(config: RunConfig, stage: Stage, batch: Microbatch) -> float:
    shapes, model, training = family(config.model.architecture), config.model, config.training
    block = _block_activations(config, batch, training.activation_checkpointing)
    kept = stage.microbatches_held * stage.blocks * block
    if stage.has_head:
        kept += shapes.head_activation_bytes(model, batch)
    if not (stage.has_head and stage.has_embedding):
        kept += stage.microbatches_held * batch.tokens * model.dim * batch.value_bytes  # sent on
    return kept


def _recomputed_activations(config: RunConfig, batch: Microbatch) -> float:
    """One block's, of which the kept ones are counted already, and its gradients: those around the
    feed-forward, or of the whole sequence's keys and values."""
    shapes, mode = family(config.model.architecture), config.training.activation_checkpointing
    whole = _block_activations(config, batch, "none")
    kept = _block_activations(config, batch, mode)
    working = shapes.block_working_bytes(config.model, batch)
    return max(0.0, whole - kept) + max(working, gathered_context_bytes(config, batch))


def _block_activations(config: RunConfig, batch: Microbatch, mode: str) -> float:
    """Without checkpointing attention keeps the keys and values of the whole sequence."""
    kept = family(config.model.architecture).block_activation_bytes(config.model, batch, mode)
    return kept + (gathered_context_bytes(config, batch) if mode == "none" else 0.0)


def gathered_context_bytes(config: RunConfig, batch: Microbatch) -> float:
    """Keys and values of a block's sequences that are of other context-parallel ranks' tokens.

    Source: torchtitan 0.3.0, set_gqa_inner_attention_local_map: gathered whole, not passed around.
    """
    others = config.parallelism.context_parallel - 1
    width = 2 * config.model.dim // config.model.num_heads * config.model.num_kv_heads
    return others * batch.tokens * width * batch.value_bytes / batch.tensor_parallel


def _logits(config: RunConfig, stage: Stage, batch: Microbatch) -> float:
    if not stage.has_head:
        return 0.0
    copies = _LOGIT_COPIES if batch.tensor_parallel == 1 else _PARALLEL_LOGIT_COPIES
    if config.training.z_loss_weight:
        copies += _Z_LOSS_COPIES
    return copies * 4.0 * batch.tokens * config.model.vocab_size / batch.tensor_parallel


@dataclass(frozen=True)
class _Gathered:
    """Bytes of FSDP2's buffers. Its units: the embedding, each block, norm and output layer; tied,
    embedding and head are one unit. A head stays gathered from forward to backward.

    Source: torchtitan 0.3.0 distributed/fsdp.py; torch.distributed.fsdp, FSDPParamGroup.
    """

    at_loss: float
    at_backward: float
    at_end: float
    head_shard: float  # gradients of the head, once reduced

    @classmethod
    def of(cls, config: RunConfig, stage: Stage) -> _Gathered:
        parallelism, value = config.parallelism, VALUE_BYTES[config.training.precision]
        shapes, model = family(config.model.architecture), config.model
        degree = parallelism.tensor_parallel
        if parallelism.pipeline_parallel > 1:
            whole = _stage_elements(config, stage, lambda each: gathered_elements(each, degree))
            return cls._of_pipeline(whole, value)
        block = gathered_elements(fullest_block(model), degree)
        table = shapes.embedding(model)
        head = shapes.head(model) + (table if model.tie_embeddings else ())
        head_elements = gathered_elements(head, degree)
        unreduced = value + _REDUCE_BYTES  # a gradient, and its copy in float32
        return cls(
            at_loss=value * (head_elements + block),
            at_backward=unreduced * head_elements + (2 * value + unreduced) * block,
            at_end=unreduced * max(gathered_elements(table, degree), block),
            head_shard=_MASTER_BYTES * sharded_elements(head, degree, parallelism.shards),
        )

    @classmethod
    def _of_pipeline(cls, elements: int, value: int) -> _Gathered:
        """All of a stage stays gathered, and gradients add up unreduced until the last microbatch.

        Source: torch.distributed.pipelining.stage, backward_maybe_with_nosync.
        """
        whole = float((value + _REDUCE_BYTES) * elements)
        return cls(at_loss=whole, at_backward=whole, at_end=whole, head_shard=0.0)
