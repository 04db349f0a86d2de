"""`spec.training.curriculum`: its rules in Python, and its segments as pods read them. Pure.

The rules are those of `api.rules` by the same names. How segments are applied to a configuration is
`pretrain_llm.contract.curriculum`.
"""

from __future__ import annotations

from collections.abc import Iterator

from pretrain_llm.contract import config as contract
from pretrain_llm.contract.meshes import context_unit

from .api.schedule import Segment
from .api.spec import RunSpec, Training
from .spec_error import SpecError

_FIELD = "spec.training.curriculum"


def last_length(training: Training) -> int:
    """Tokens a sequence of the last segment: what the finished model is made for."""
    lengths = [segment.sequence_length for segment in training.curriculum]
    return next((length for length in reversed(lengths) if length), training.sequence_length)


def segment_configs(training: Training, data_ranks: int) -> tuple[contract.SegmentConfig, ...]:
    return tuple(
        contract.SegmentConfig(
            from_step=segment.from_step,
            sequence_length=segment.sequence_length,
            global_batch_size=segment.global_batch_size,
            local_batch_size=_local_batch_size(segment, stated, data_ranks),
            rope_theta=segment.rope_theta,
            learning_rate=segment.learning_rate,
            schedule=_schedule(segment),
            seed=segment.seed,
            reset_optimizer=segment.reset_optimizer or None,
            weights=tuple(contract.WeightConfig(w.name, w.weight) for w in segment.weights),
        )
        for segment, _, stated in _batches(training)
    )


def _local_batch_size(segment: Segment, stated: int | None, data_ranks: int) -> int | None:
    """Without one that is stated, here or before, a batch is not accumulated."""
    if stated or segment.global_batch_size is None:
        return segment.local_batch_size
    return segment.global_batch_size // data_ranks


def _schedule(segment: Segment) -> contract.ScheduleConfig | None:
    given = segment.schedule
    return None if given is None else contract.ScheduleConfig(**given.model_dump())


def _batches(training: Training) -> Iterator[tuple[Segment, int, int | None]]:
    """Each segment with the global batch and the stated local batch in effect in it."""
    batch, local = training.global_batch_size, training.local_batch_size
    for segment in training.curriculum:
        batch = segment.global_batch_size or batch
        local = segment.local_batch_size or local
        yield segment, batch, local


def curriculum_violations(spec: RunSpec, world: int) -> Iterator[SpecError]:
    yield from _step_violations(spec.training)
    for number, segment in enumerate(spec.training.curriculum):
        field = f"{_FIELD}[{number}]"
        yield from _source_violations(spec, segment, field)
        yield from _position_violations(spec, segment, field)
    if world % spec.parallelism.model_ranks == 0:
        yield from _batch_violations(spec, world // spec.parallelism.model_ranks)


def _step_violations(training: Training) -> Iterator[SpecError]:
    steps = [segment.from_step for segment in training.curriculum]
    if steps and training.steps is None:
        found = f"{len(steps)} segments"
        remedy = "begin at steps, but the length is in tokens; set steps in place of tokens"
        yield SpecError("curriculum-in-steps", _FIELD, found, remedy)
    if steps != sorted(set(steps)):
        remedy = "let each segment begin after the one before"
        yield SpecError("curriculum-in-order", _FIELD, steps, remedy)
    if training.steps is not None and steps and max(steps) >= training.steps:
        remedy = f"let each segment begin before the end, training.steps {training.steps}"
        yield SpecError("curriculum-below-steps", _FIELD, max(steps), remedy)


def _source_violations(spec: RunSpec, segment: Segment, field: str) -> Iterator[SpecError]:
    known = [source.name for source in spec.data.sources]
    names = [entry.name for entry in segment.weights]
    if unknown := [name for name in names if name not in known]:
        remedy = f"is not in data.sources; use one of {', '.join(known)}"
        yield SpecError("curriculum-sources-known", f"{field}.weights", unknown[0], remedy)
    if len(set(names)) < len(names):
        found = ", ".join(names)
        remedy = "has two weights of one source; give each one"
        yield SpecError("curriculum-sources-once", f"{field}.weights", found, remedy)


def _position_violations(spec: RunSpec, segment: Segment, field: str) -> Iterator[SpecError]:
    model, length = spec.model, segment.sequence_length
    tensor_parallel = spec.parallelism.tensor_parallel
    if length is not None and length % tensor_parallel:
        remedy = f"choose a multiple of parallelism.tensorParallel {tensor_parallel}"
        yield SpecError("curriculum-sequence-splits", f"{field}.sequenceLength", length, remedy)
    unit = context_unit(spec.parallelism.context_parallel, tensor_parallel)
    if length is not None and length % unit:
        remedy = (
            f"parallelism.contextParallel {spec.parallelism.context_parallel} does not cut it"
            f" evenly; choose a multiple of {unit}"
        )
        yield SpecError("curriculum-context-divides", f"{field}.sequenceLength", length, remedy)
    if model.architecture not in contract.LEARNED_POSITIONS:
        return
    rows = model.max_positions or spec.training.sequence_length
    if length is not None and length > rows:
        remedy = f"exceeds the table of {rows} positions; set model.maxPositions to the longest"
        yield SpecError("curriculum-fits-positions", f"{field}.sequenceLength", length, remedy)
    if (theta := segment.rope_theta) is not None:
        remedy = f"{model.architecture} rotates nothing; leave it out"
        yield SpecError("curriculum-has-rotation", f"{field}.ropeTheta", theta, remedy)


def _batch_violations(spec: RunSpec, data_ranks: int) -> Iterator[SpecError]:
    stages = spec.parallelism.pipeline_parallel
    for number, (segment, batch, local) in enumerate(_batches(spec.training)):
        if segment.global_batch_size is None and segment.local_batch_size is None:
            continue
        field, unit = f"{_FIELD}[{number}]", data_ranks * (local or 1)
        if batch % unit:
            remedy = f"choose a multiple of data-parallel ranks x localBatchSize, which is {unit}"
            yield SpecError("curriculum-batch-divides", f"{field}.globalBatchSize", batch, remedy)
        elif stages > 1 and (at_once := local or batch // data_ranks) < stages:
            remedy = (
                f"is less than parallelism.pipelineParallel {stages}; each stage needs a sequence:"
                " raise it (or globalBatchSize, where it is not set)"
            )
            yield SpecError("curriculum-pipeline-fed", f"{field}.localBatchSize", at_once, remedy)
