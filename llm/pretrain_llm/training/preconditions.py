"""What must hold of a configuration before anything is built: pure, no torch.

The API server has checked most of it; a worker checks again because it also runs by hand, and
because torchtitan's own errors name other fields than the spec's. What a run trains is fixed once
it has started, so remedies name what may still be edited, or a run under another name.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..contract.config import (
    ARCHITECTURES,
    LEARNED_POSITIONS,
    UNGROUPED,
    UNSPLIT,
    ModelConfig,
    ParallelismConfig,
    RunConfig,
)
from ..contract.curriculum import segments
from ..contract.meshes import context_unit
from ..errors import InputError
from . import mesh

OPTIMIZERS = ("AdamW", "Muon")
DECAYS = ("linear", "cosine", "sqrt")
PRECISIONS = ("float32", "bfloat16")
CHECKPOINTINGS = ("none", "selective", "full")

_OTHER_IMAGE = "name an image that knows it in spec.nodes.template.image."

Problem = tuple[str, object, str, str]  # field, value, what is wrong, remedy


def check(config: RunConfig, world_size: int) -> None:
    """Raises InputError with the first problem."""
    for field, value, message, remedy in problems(config, world_size):
        raise InputError(message, field=field, value=value, remedy=remedy)


def problems(config: RunConfig, world_size: int) -> Iterator[Problem]:
    for segment in segments(config):
        yield from _segment_problems(segment.run, world_size)


def _segment_problems(config: RunConfig, world_size: int) -> Iterator[Problem]:
    yield from _names(config)
    yield from _heads(config)
    yield from _family(config.model)
    yield from _positions(config.model, config.training.sequence_length)
    yield from _muon(config)
    yield from _whole(config)
    yield from _mesh(config.parallelism, world_size)
    yield from _context(config)
    yield from _batches(config)
    yield from _pipeline(config)


def _names(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    known = (
        ("model.architecture", config.model.architecture, ARCHITECTURES),
        ("training.optimizer.name", training.optimizer.name, OPTIMIZERS),
        ("training.schedule.decay", training.schedule.decay, DECAYS),
        ("training.precision", training.precision, PRECISIONS),
        (
            "training.activationCheckpointing",
            training.activation_checkpointing,
            CHECKPOINTINGS,
        ),
    )
    for field, value, names in known:
        if value not in names:
            remedy = f"Use one of: {', '.join(names)}; or {_OTHER_IMAGE}"
            yield f"spec.{field}", value, "unknown to this image", remedy


def _heads(config: RunConfig) -> Iterator[Problem]:
    model, tensor_parallel = config.model, config.parallelism.tensor_parallel
    divisions = (
        ("model.numHeads", model.dim, model.num_heads, "spec.model.dim"),
        ("model.numKVHeads", model.num_heads, model.num_kv_heads, "spec.model.numHeads"),
        ("parallelism.tensorParallel", model.num_heads, tensor_parallel, "spec.model.numHeads"),
        (
            "parallelism.tensorParallel",
            model.num_kv_heads,
            tensor_parallel,
            "spec.model.numKVHeads",
        ),
        (
            "parallelism.tensorParallel",
            config.training.sequence_length,
            tensor_parallel,
            "spec.training.sequenceLength",
        ),
    )
    for field, whole, part, of in divisions:
        if whole % part:
            message = f"{of} {whole} does not divide by {part}"
            is_fixed = field.startswith("model.")
            remedy = f"Start a run under another name with a divisor of {of}."
            yield f"spec.{field}", part, message, remedy if is_fixed else f"Use a divisor of {of}."


def _family(model: ModelConfig) -> Iterator[Problem]:
    name, width = model.architecture, model.dim // model.num_heads
    if name in UNGROUPED and model.num_kv_heads != model.num_heads:
        message = f"{name} has no grouped heads"
        remedy = f"Start a run under another name with numHeads {model.num_heads} of them."
        yield "spec.model.numKVHeads", model.num_kv_heads, message, remedy
    if name == "gpt_neox" and width % 8:
        message = f"a head is {width} wide, and {name} rotates an even quarter of it"
        remedy = "Start a run under another name, where dim / numHeads is a multiple of 8."
        yield "spec.model.numHeads", model.num_heads, message, remedy


def _positions(model: ModelConfig, sequence_length: int) -> Iterator[Problem]:
    rows = model.max_positions or 0
    if model.architecture in LEARNED_POSITIONS and rows < sequence_length:
        message = f"a table of {rows} positions for sequences of {sequence_length} tokens"
        remedy = f"Start a run under another name with {sequence_length} or more."
        yield "spec.model.maxPositions", rows, message, remedy


def _muon(config: RunConfig) -> Iterator[Problem]:
    optimizer, degree = config.training.optimizer, config.parallelism.tensor_parallel
    if optimizer.name != "Muon":
        return
    if optimizer.adamw_learning_rate is None:
        message = "Muon leaves embeddings, output layer, norms and biases to AdamW"
        remedy = "Start a run under another name that has it."
        yield "spec.training.optimizer.adamwLearningRate", None, message, remedy
    if degree > 1:
        message = "Muon needs the whole matrices that tensor parallelism splits"
        yield "spec.parallelism.tensorParallel", degree, message, "Use 1."


def _whole(config: RunConfig) -> Iterator[Problem]:
    name, degrees = config.model.architecture, config.parallelism
    if name not in UNSPLIT:
        return
    for field, degree in (
        ("tensorParallel", degrees.tensor_parallel),
        ("pipelineParallel", degrees.pipeline_parallel),
        ("contextParallel", degrees.context_parallel),
    ):
        if degree > 1:
            remedy = "Use 1, and shard with dataParallelShard."
            yield f"spec.parallelism.{field}", degree, f"{name} is whole on every rank", remedy


def _mesh(parallelism: ParallelismConfig, world_size: int) -> Iterator[Problem]:
    wanted = mesh.world_size(parallelism)
    if wanted != world_size:
        yield (
            "spec.parallelism",
            wanted,
            f"the degrees' product is {wanted}, but there are {world_size} workers",
            "Make the product of all degrees spec.nodes.count times spec.nodes.devicesPerNode.",
        )


def _context(config: RunConfig) -> Iterator[Problem]:
    mesh_of, length = config.parallelism, config.training.sequence_length
    unit = context_unit(mesh_of.context_parallel, mesh_of.tensor_parallel)
    if length % unit:
        message = f"does not cut spec.training.sequenceLength {length} evenly"
        remedy = f"Use a degree that does; for this one it is a multiple of {unit}."
        yield "spec.parallelism.contextParallel", mesh_of.context_parallel, message, remedy


def _batches(config: RunConfig) -> Iterator[Problem]:
    training = config.training
    at_once = training.local_batch_size * mesh.data_parallel_ranks(config.parallelism)
    if training.global_batch_size % at_once:
        yield (
            "spec.training.localBatchSize",
            training.local_batch_size,
            f"all data-parallel ranks take {at_once} sequences at once, "
            f"which does not divide spec.training.globalBatchSize {training.global_batch_size}",
            "Make it, times the data-parallel degrees, a divisor of the global batch.",
        )


def _pipeline(config: RunConfig) -> Iterator[Problem]:
    stages, field = config.parallelism.pipeline_parallel, "spec.parallelism.pipelineParallel"
    if stages == 1:
        return
    if config.model.tie_embeddings:
        message = "the first and the last stage cannot share the embedding"
        remedy = "Use 1, or start a run under another name with spec.model.tieEmbeddings false."
        yield field, stages, message, remedy
    if config.model.num_layers < stages:
        message = f"more stages than the model's {config.model.num_layers} layers"
        yield field, stages, message, "Use fewer stages."
    if config.training.local_batch_size < stages:
        message = f"fewer sequences at once ({config.training.local_batch_size}) than stages"
        yield field, stages, message, "Raise spec.training.localBatchSize to the stages or more."
