"""The specification with every default resolved: what pods read as run.json. Pure.

Checks again, in Python, every rule that the CRD says in CEL (same names, see api.rules), so that
an API server with an older CRD does no harm; and what the CRD cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from pretrain_llm.contract import config as contract
from pretrain_llm.contract import meshes
from pretrain_llm.contract.environment import VOLUME_PATH

from .api.spec import (
    AnySpec,
    Checkpoint,
    Data,
    Model,
    Nodes,
    Optimizer,
    RunSpec,
    ScriptSpec,
    Training,
)
from .common_rules import common_violations
from .curriculum import curriculum_violations, last_length, segment_configs
from .observed import Run
from .script import script_config, script_violations
from .soup import ingredient_configs, soup_violations
from .sources import source_violations
from .spec_error import SpecError, repeated


def run_config(run: Run) -> contract.AnyConfig:
    """Raises SpecError for the first rule that the spec breaks."""
    if isinstance(run.spec, ScriptSpec):
        return script_run_config(run.name, run.spec)
    assert isinstance(run.spec, RunSpec)
    return titan_config(run.name, run.spec)


def titan_config(name: str, spec: RunSpec) -> contract.RunConfig:
    """Of a run that torchtitan trains. Raises SpecError as `run_config`."""
    _check(name, spec)
    return _resolved(name, spec)


def script_run_config(name: str, spec: ScriptSpec) -> contract.ScriptRunConfig:
    """Raises SpecError as `run_config`."""
    _check(name, spec)
    return _resolved_script(name, spec)


def _check(name: str, spec: AnySpec) -> None:
    error = next(violations(name, spec), None)
    if error is not None:
        raise error


def before_export(config: contract.AnyConfig) -> contract.AnyConfig:
    """What data and training read: editing a later stage does not disturb them."""
    if not isinstance(config, contract.RunConfig):
        return config
    return for_export(_without_soup(config))


def for_export(config: contract.RunConfig) -> contract.RunConfig:
    return replace(config, post_training=())


def for_post_training(config: contract.RunConfig, name: str) -> contract.RunConfig:
    entries = tuple(entry for entry in config.post_training if entry.name == name)
    return replace(_without_soup(config), post_training=entries)


def _without_soup(config: contract.RunConfig) -> contract.RunConfig:
    return replace(config, export=replace(config.export, soup=()))


# Rules


def violations(name: str, spec: AnySpec) -> Iterator[SpecError]:
    yield from common_violations(name, spec)
    if isinstance(spec, RunSpec):
        yield from _titan_violations(spec)
    elif isinstance(spec, ScriptSpec):
        yield from script_violations(spec)


def _titan_violations(spec: RunSpec) -> Iterator[SpecError]:
    yield from _model_violations(spec.model)
    yield from _input_violations(spec)
    yield from source_violations(spec)
    yield from _training_violations(spec.training)
    yield from _mesh_violations(spec)
    yield from _shrinking_violations(spec)
    yield from _model_parallel_violations(spec)
    yield from curriculum_violations(spec, world_size(spec.nodes))
    yield from soup_violations(spec)
    yield from _post_training_violations(spec)
    yield from _serving_violations(spec)


def _model_violations(model: Model) -> Iterator[SpecError]:
    heads, kv_heads = model.num_heads, model.num_kv_heads
    if model.dim % heads:
        remedy = f"choose a multiple of numHeads {heads}"
        yield SpecError("heads-divide-dim", "spec.model.dim", model.dim, remedy)
    elif model.dim // heads % 2:
        remedy = f"dim / numHeads is {model.dim // heads}, but rotary embeddings need it even"
        yield SpecError("head-dim-even", "spec.model.numHeads", heads, remedy)
    if kv_heads is not None and heads % kv_heads:
        remedy = f"choose a divisor of numHeads {heads}"
        yield SpecError("kv-heads-divide-heads", "spec.model.numKVHeads", kv_heads, remedy)
    yield from _family_violations(model)


def _family_violations(model: Model) -> Iterator[SpecError]:
    kv_heads, width = model.num_kv_heads, model.dim // model.num_heads
    if model.architecture in contract.UNGROUPED and kv_heads not in (None, model.num_heads):
        remedy = f"{model.architecture} has no grouped heads; leave it out"
        yield SpecError("family-has-no-grouped-heads", "spec.model.numKVHeads", kv_heads, remedy)
    is_even = model.dim % model.num_heads == 0 and width % 2 == 0
    if model.architecture == "gpt_neox" and is_even and width % 8:
        remedy = f"dim / numHeads is {width}, but gpt_neox rotates an even quarter of it"
        yield SpecError("rotary-quarter-even", "spec.model.numHeads", model.num_heads, remedy)
    yield from _position_violations(model)
    if model.biases is not None and model.architecture not in contract.BIASES_OPTIONAL:
        remedy = f"{model.architecture} has no choice of biases; leave it out"
        field = "spec.model.biases"
        yield SpecError("family-has-no-choice-of-biases", field, model.biases, remedy)


def _position_violations(model: Model) -> Iterator[SpecError]:
    has_table = model.architecture in contract.LEARNED_POSITIONS
    if model.max_positions is not None and not has_table:
        remedy = f"{model.architecture} has no table of positions; leave it out"
        field = "spec.model.maxPositions"
        yield SpecError("family-has-no-positions", field, model.max_positions, remedy)
    if has_table and model.rope_theta != contract.DEFAULT_ROPE_THETA:
        remedy = f"{model.architecture} has a table of positions and rotates nothing; leave it out"
        yield SpecError("family-has-no-rotation", "spec.model.ropeTheta", model.rope_theta, remedy)


def _input_violations(spec: RunSpec) -> Iterator[SpecError]:
    positions, length = spec.model.max_positions, spec.training.sequence_length
    if positions is not None and positions < length:
        remedy = f"is less than training.sequenceLength {length}; raise it, or leave it out"
        yield SpecError("positions-cover-sequence", "spec.model.maxPositions", positions, remedy)
    train, path = spec.tokenizer.train, spec.tokenizer.path
    if (train is None) == (path is None):
        found = "train and path are both set" if train else "neither train nor path is set"
        yield SpecError("tokenizer-one-source", "spec.tokenizer", found, "set exactly one of them")
    output_rate = spec.training.optimizer.output_learning_rate
    if output_rate is not None and spec.model.tie_embeddings:
        remedy = "model.tieEmbeddings makes it the embedding; set embeddingLearningRate instead"
        field = "spec.training.optimizer.outputLearningRate"
        yield SpecError("output-rate-has-output", field, output_rate, remedy)
    scalar_rate, family = spec.training.optimizer.scalar_learning_rate, spec.model.architecture
    if scalar_rate is not None and family not in contract.SCALED:
        field = "spec.training.optimizer.scalarLearningRate"
        remedy = f"{family} has no scalars; leave it out"
        yield SpecError("family-has-no-scalars", field, scalar_rate, remedy)
    if train is not None and train.vocab_size > spec.model.vocab_size:
        remedy = f"exceeds model.vocabSize {spec.model.vocab_size}; raise the model's or lower it"
        field = "spec.tokenizer.train.vocabSize"
        yield SpecError("tokenizer-fits-model", field, train.vocab_size, remedy)


def _training_violations(training: Training) -> Iterator[SpecError]:
    if (training.steps is None) == (training.tokens is None):
        found = "steps and tokens are both missing"
        if training.steps is not None:
            found = f"steps {training.steps} and tokens {training.tokens} are both set"
        yield SpecError("length-one-unit", "spec.training", found, "set exactly one of them")
    yield from _optimizer_violations(training.optimizer)
    wandb = training.wandb
    if wandb is not None and wandb.mode == "online" and wandb.api_key_secret is None:
        remedy = "name a Secret in wandb.apiKeySecret, or choose mode offline"
        yield SpecError("wandb-online-has-key", "spec.training.wandb.mode", "online", remedy)


def _optimizer_violations(optimizer: Optimizer) -> Iterator[SpecError]:
    field, rate = "spec.training.optimizer", optimizer.adamw_learning_rate
    if optimizer.name == "Muon" and rate is None:
        remedy = "AdamW takes embeddings, output layer, norms and biases; set adamwLearningRate"
        yield SpecError("muon-names-adamw-rate", f"{field}.name", "Muon", remedy)
    others = (rate, optimizer.adamw_weight_decay, optimizer.momentum)
    if optimizer.name != "Muon" and any(value is not None for value in others):
        remedy = (
            "has no adamwLearningRate, adamwWeightDecay and momentum; leave them out, or choose"
            " Muon"
        )
        yield SpecError("muon-has-its-fields", f"{field}.name", optimizer.name, remedy)


def _mesh_violations(spec: RunSpec) -> Iterator[SpecError]:
    mesh, world = spec.parallelism, world_size(spec.nodes)
    field = "spec.parallelism"
    if mesh.data_parallel_shard == 0:
        remedy = "set a positive number, or -1 for the rest"
        yield SpecError("shard-degree-not-zero", f"{field}.dataParallelShard", 0, remedy)
    ranks = mesh.model_ranks * mesh.data_parallel_replicate
    if mesh.data_parallel_shard > 0:
        ranks *= mesh.data_parallel_shard
    if ranks != world if mesh.data_parallel_shard > 0 else world % ranks:
        remedy = (
            f"nodes.count x nodes.devicesPerNode is {world}; make the product of the degrees equal"
            " to it, or let dataParallelShard -1 fill it"
        )
        yield SpecError("mesh-fills-world", field, f"{ranks} ranks", remedy)
    if world % mesh.model_ranks == 0:
        data_ranks = world // mesh.model_ranks
        yield from _batch_violations(spec.training, mesh.pipeline_parallel, data_ranks)


def _shrinking_violations(spec: RunSpec) -> Iterator[SpecError]:
    nodes, training = spec.nodes, spec.training
    if nodes.min is None or nodes.min > nodes.count:
        return
    if not any((*_training_violations(training), *_mesh_violations(spec))):
        run = _resolved("", spec)
        if meshes.on_nodes(run, nodes.min) is None:
            all_fewer = meshes.fewer_nodes(replace(run, nodes=replace(run.nodes, min=1)))
            legal = ", ".join(str(count) for count in (nodes.count, *all_fewer[:8]))
            remedy = (
                "no mesh keeps the model's parts whole and divides training.globalBatchSize"
                f" {training.global_batch_size} evenly; choose one of {legal}"
            )
            yield SpecError("min-nodes-have-mesh", "spec.nodes.min", nodes.min, remedy)


def _batch_violations(training: Training, stages: int, data_ranks: int) -> Iterator[SpecError]:
    batch, local = training.global_batch_size, training.local_batch_size
    unit = data_ranks * (local or 1)
    if batch % unit:
        remedy = f"choose a multiple of data-parallel ranks x localBatchSize, which is {unit}"
        yield SpecError("batch-divides", "spec.training.globalBatchSize", batch, remedy)
    elif stages > 1 and (local or batch // data_ranks) < stages:
        remedy = (
            f"is less than parallelism.pipelineParallel {stages}; each stage needs a sequence:"
            " raise it (or globalBatchSize, where it is not set)"
        )
        field = "spec.training.localBatchSize"
        yield SpecError("pipeline-fed", field, local or batch // data_ranks, remedy)


def _model_parallel_violations(spec: RunSpec) -> Iterator[SpecError]:
    model, mesh = spec.model, spec.parallelism
    heads, kv_heads = model.num_heads, model.num_kv_heads or model.num_heads
    if heads % mesh.tensor_parallel or kv_heads % mesh.tensor_parallel:
        remedy = f"choose a divisor of model.numHeads {heads} and numKVHeads {kv_heads}"
        field = "spec.parallelism.tensorParallel"
        yield SpecError("tensor-parallel-divides-heads", field, mesh.tensor_parallel, remedy)
    if (length := spec.training.sequence_length) % mesh.tensor_parallel:
        remedy = f"choose a divisor of training.sequenceLength {length}, which it shards"
        field = "spec.parallelism.tensorParallel"
        yield SpecError("tensor-parallel-divides-sequence", field, mesh.tensor_parallel, remedy)
    unit = meshes.context_unit(mesh.context_parallel, mesh.tensor_parallel)
    if length % unit:
        remedy = (
            f"does not cut training.sequenceLength {length} evenly; choose a multiple of {unit}"
            f" with tensorParallel {mesh.tensor_parallel}"
        )
        field = "spec.parallelism.contextParallel"
        yield SpecError("context-parallel-divides-sequence", field, mesh.context_parallel, remedy)
    if spec.training.optimizer.name == "Muon" and mesh.tensor_parallel > 1:
        remedy = "splits the matrices that Muon needs whole; set it to 1, or choose AdamW"
        field = "spec.parallelism.tensorParallel"
        yield SpecError("muon-whole-matrices", field, mesh.tensor_parallel, remedy)
    if model.architecture in contract.UNSPLIT and mesh.model_ranks > 1:
        degrees = (
            f"tensorParallel {mesh.tensor_parallel}, pipelineParallel {mesh.pipeline_parallel},"
            f" contextParallel {mesh.context_parallel}"
        )
        remedy = (
            f"{model.architecture} is whole on every rank, with whole sequences; set all to 1 and"
            " shard with dataParallelShard"
        )
        yield SpecError("family-is-whole", "spec.parallelism", degrees, remedy)
    field = "spec.parallelism.pipelineParallel"
    if mesh.pipeline_parallel > model.num_layers:
        remedy = f"exceeds model.numLayers {model.num_layers}; each stage needs a layer"
        yield SpecError("pipeline-fits-layers", field, mesh.pipeline_parallel, remedy)
    if mesh.pipeline_parallel > 1 and model.tie_embeddings:
        remedy = "set model.tieEmbeddings false, or pipelineParallel 1"
        yield SpecError("pipeline-unties-embeddings", field, mesh.pipeline_parallel, remedy)


def _post_training_violations(spec: RunSpec) -> Iterator[SpecError]:
    names = [entry.name for entry in spec.post_training]
    if (name := repeated(names)) is not None:
        yield SpecError("post-training-unique", "spec.postTraining", name, "give each its own name")
    for reserved in sorted({"last", "export"} & set(names)):
        remedy = "serving.from uses this name; give the entry another one"
        yield SpecError("post-training-names-free", "spec.postTraining", reserved, remedy)
    trained = last_length(spec.training)
    for index, entry in enumerate(spec.post_training):
        if entry.max_length is not None and entry.max_length > trained:
            remedy = f"exceeds training.sequenceLength {trained}; lower it, or leave it out"
            field = f"spec.postTraining[{index}].maxLength"
            yield SpecError("post-training-length-trained", field, entry.max_length, remedy)


def _serving_violations(spec: RunSpec) -> Iterator[SpecError]:
    serving = spec.serving
    if serving is None:
        return
    if spec.model.architecture in contract.UNSERVED:
        remedy = f"vLLM has no model for architecture {spec.model.architecture}; leave it out"
        yield SpecError("family-is-not-served", "spec.serving.from", serving.source, remedy)
    known = ["last", "export", *(entry.name for entry in spec.post_training)]
    if serving.source not in known:
        remedy = f"use one of {', '.join(known)}"
        yield SpecError("serving-from-known", "spec.serving.from", serving.source, remedy)
    if serving.devices and spec.model.num_heads % serving.devices:
        remedy = f"choose a divisor of model.numHeads {spec.model.num_heads}"
        yield SpecError(
            "serving-devices-divide-heads", "spec.serving.devices", serving.devices, remedy
        )
    length, trained = serving.max_model_length, last_length(spec.training)
    if length is not None and length > trained:
        remedy = f"exceeds training.sequenceLength {trained}; lower it"
        field = "spec.serving.maxModelLength"
        yield SpecError("serving-length-trained", field, length, remedy)


# Resolving


def world_size(nodes: Nodes) -> int:
    """Ranks: one a device, or one a node's CPU."""
    return nodes.count * nodes.devices_per_node


def total_steps(training: Training) -> int:
    """Tokens are rounded up to whole steps."""
    if training.steps is not None:
        return training.steps
    assert training.tokens is not None
    return math.ceil(training.tokens / (training.global_batch_size * training.sequence_length))


def volume_path(path: str) -> str:
    """Where a pod finds what the spec names: a relative path is below the mount point."""
    return path if path.startswith("/") or "://" in path else f"{VOLUME_PATH}/{path}"


def _resolved(name: str, spec: RunSpec) -> contract.RunConfig:
    parallelism = _parallelism(spec)
    return contract.RunConfig(
        run=name,
        volume=VOLUME_PATH,
        model=_model(spec.model, spec.training.sequence_length),
        tokenizer=contract.TokenizerConfig(
            train_vocab_size=spec.tokenizer.train.vocab_size if spec.tokenizer.train else None,
            path=volume_path(spec.tokenizer.path) if spec.tokenizer.path else None,
        ),
        data=_data(spec.data),
        training=_training(spec.training, parallelism),
        nodes=_nodes(spec.nodes),
        parallelism=parallelism,
        checkpoint=_checkpoint(spec.checkpoint),
        export=contract.ExportConfig(dtype=spec.export.dtype, soup=ingredient_configs(spec.export)),
        post_training=_post_training(spec),
    )


def _resolved_script(name: str, spec: ScriptSpec) -> contract.ScriptRunConfig:
    return contract.ScriptRunConfig(
        run=name,
        volume=VOLUME_PATH,
        nodes=_nodes(spec.nodes),
        checkpoint=_checkpoint(spec.checkpoint),
        script=script_config(spec.script),
    )


def _nodes(nodes: Nodes) -> contract.NodesConfig:
    return contract.NodesConfig(
        count=nodes.count,
        spares=nodes.spares,
        devices_per_node=nodes.devices_per_node,
        device="cuda" if nodes.device_resource else "cpu",
        min=nodes.min,
    )


def _checkpoint(checkpoint: Checkpoint) -> contract.CheckpointConfig:
    memory = checkpoint.memory
    return contract.CheckpointConfig(
        interval=None if checkpoint.interval == "auto" else checkpoint.interval,
        min_interval=checkpoint.min_interval,
        max_interval=checkpoint.max_interval,
        keep_latest=checkpoint.keep_latest,
        keep_steps=checkpoint.keep_steps,
        keep_every=checkpoint.keep_every,
        memory=contract.MemoryConfig(memory.interval) if memory else None,
    )


def _model(model: Model, sequence_length: int) -> contract.ModelConfig:
    has_table = model.architecture in contract.LEARNED_POSITIONS
    return contract.ModelConfig(
        architecture=model.architecture,
        dim=model.dim,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads or model.num_heads,
        ffn_hidden_dim=model.ffn_hidden_dim,
        vocab_size=model.vocab_size,
        rope_theta=model.rope_theta,
        norm_eps=model.norm_eps,
        tie_embeddings=model.tie_embeddings,
        max_positions=(model.max_positions or sequence_length) if has_table else None,
        biases=model.biases,
    )


def _data(data: Data) -> contract.DataConfig:
    sources = tuple(
        contract.SourceConfig(
            name=source.name,
            path=volume_path(source.path),
            format=source.format,
            text_field=source.text_field,
            weight=source.weight,
        )
        for source in data.sources
    )
    return contract.DataConfig(sources=sources, held_out_fraction=data.held_out_fraction)


def _parallelism(spec: RunSpec) -> contract.ParallelismConfig:
    mesh = spec.parallelism
    others = mesh.data_parallel_replicate * mesh.model_ranks
    return contract.ParallelismConfig(
        data_parallel_replicate=mesh.data_parallel_replicate,
        data_parallel_shard=mesh.data_parallel_shard
        if mesh.data_parallel_shard > 0
        else world_size(spec.nodes) // others,
        tensor_parallel=mesh.tensor_parallel,
        pipeline_parallel=mesh.pipeline_parallel,
        context_parallel=mesh.context_parallel,
    )


def _training(training: Training, mesh: contract.ParallelismConfig) -> contract.TrainingConfig:
    data_ranks = mesh.data_parallel_replicate * mesh.data_parallel_shard
    optimizer, schedule, wandb = training.optimizer, training.schedule, training.wandb
    skip = training.skip_step
    return contract.TrainingConfig(
        sequence_length=training.sequence_length,
        global_batch_size=training.global_batch_size,
        local_batch_size=training.local_batch_size or training.global_batch_size // data_ranks,
        steps=total_steps(training),
        optimizer=contract.OptimizerConfig(**optimizer.model_dump()),
        schedule=contract.ScheduleConfig(**schedule.model_dump()),
        gradient_clip_norm=training.gradient_clip_norm,
        precision=training.precision,
        activation_checkpointing=training.activation_checkpointing,
        compile=training.compile,
        seed=training.seed,
        wandb=contract.WandbConfig(wandb.project, wandb.mode) if wandb else None,
        z_loss_weight=training.z_loss_weight,
        skip_step=contract.SkipStepConfig(**skip.model_dump()) if skip else None,
        curriculum=segment_configs(training, data_ranks),
    )


def _post_training(spec: RunSpec) -> tuple[contract.PostTrainingConfig, ...]:
    return tuple(
        contract.PostTrainingConfig(
            name=entry.name,
            method=entry.method,
            steps=entry.steps,
            batch_size=entry.batch_size,
            learning_rate=entry.learning_rate,
            max_length=entry.max_length or last_length(spec.training),
            dataset_path=volume_path(entry.dataset_path) if entry.dataset_path else None,
        )
        for entry in spec.post_training
    )
