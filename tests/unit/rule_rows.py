"""One row for each rule of the API: a change of the demo's run that breaks it, and a neighbour that
does not. The unit tests put them through `config`, the integration tests through a real API server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .runs import demo_body, set_field

Changes = dict[str, Any]


@dataclass(frozen=True)
class Row:
    rule: str
    bad: Changes  # path: value; below spec unless it begins with metadata
    good: Changes
    found: tuple[str, ...]  # what the message must say: the value, and a word of the remedy
    base: Changes = field(default_factory=dict)  # applied before either

    def body(self, changes: Changes) -> dict[str, Any]:
        body = demo_body()
        for path, value in {**self.base, **changes}.items():
            set_field(body, path if path.startswith("metadata") else f"spec.{path}", value)
        return body


_FOUR_NODES = {"nodes.count": 4}
_GPT2 = {"model.architecture": "gpt2", "model.numKVHeads": None}
_MUON = {"training.optimizer.name": "Muon", "training.optimizer.adamwLearningRate": 3e-3}
_CURRICULUM = "training.curriculum"
_UNTIED = {"model.tieEmbeddings": False}

_SCRIPT: Changes = {
    "script": {"command": ["python", "train.py"], "steps": 100},
    **dict.fromkeys(("model", "tokenizer", "data", "training")),
    **dict.fromkeys(("export", "postTraining", "serving")),
}


def _post(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "steps": 1} for name in names]


_SFT = {
    "name": "sft",
    "method": "SFT",
    "steps": 40,
    "batchSize": 8,
    "learningRate": 5e-4,
    "maxLength": 256,
}


def _sources(*names: str, **weights: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"name": name, "path": f"corpus/{name}"} for name in names]
    return [
        row | ({"weight": weights[row["name"]]} if row["name"] in weights else {}) for row in rows
    ]


def _soup(*ingredients: dict[str, Any]) -> dict[str, Any]:
    return {"ingredients": list(ingredients)}


def _soup(*ingredients: dict[str, Any]) -> dict[str, Any]:
    return {"ingredients": list(ingredients)}


def _weights(*names: str) -> list[dict[str, Any]]:
    return [{"fromStep": 9, "weights": [{"name": name, "weight": 1} for name in names]}]


ROWS = (
    Row(
        "script-alone",
        {"serving": {"replicas": 1}},
        {},
        ("serving", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-alone",
        {
            "model": None,
            "training": {
                "steps": 9,
                "sequenceLength": 8,
                "globalBatchSize": 2,
                "optimizer": {"learningRate": 1e-3},
            },
        },
        {},
        ("training", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-alone",
        {"postTraining": [{"name": "sft", "steps": 1}]},
        {"nodes.min": 1},
        ("postTraining", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-spreads-itself",
        {"parallelism": {"tensorParallel": 2}},
        {"parallelism": {"tensorParallel": 1}},
        ("parallelism.tensorParallel", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-spreads-itself",
        {"export": {"dtype": "float32"}},
        {"export": {"dtype": "bfloat16"}},
        ("export.dtype", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-keeps-its-state",
        {"checkpoint": {"interval": 50, "memory": {"interval": 5}}},
        {"checkpoint": {"interval": 50}},
        ("checkpoint.memory", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "script-keeps-its-state",
        {"recovery": {"loss": {"spikeFactor": 7}}},
        {"recovery": {"loss": {"windowSteps": 50}}},
        ("recovery.loss.spikeFactor", "leave it out"),
        base=_SCRIPT,
    ),
    Row(
        "memory-more-often",
        {"checkpoint.memory": {"interval": 50}},
        {"checkpoint.memory": {"interval": 49}},
        ("50", "lower it"),
        base={"checkpoint.interval": 50},
    ),
    Row("heads-divide-dim", {"model.dim": 130}, {"model.dim": 136}, ("130", "multiple")),
    Row("head-dim-even", {"model.dim": 132}, {"model.dim": 136}, ("33", "even")),
    Row(
        "kv-heads-divide-heads",
        {"model.numKVHeads": 3},
        {"model.numKVHeads": 4},
        ("3", "divides numHeads"),
    ),
    Row(
        "family-has-no-grouped-heads",
        {"model.numKVHeads": 2},
        {"model.numKVHeads": 4},
        ("gpt_neox", "2", "leave it out"),
        base={"model.architecture": "gpt_neox"},
    ),
    Row(
        "family-has-no-grouped-heads",
        {"model.architecture": "gpt_neox"},
        {"model.architecture": "olmo2"},
        ("gpt_neox", "2", "leave it out"),
        base={"model.numKVHeads": 2},
    ),
    Row(
        "rotary-quarter-even",
        {"model.dim": 144},
        {"model.dim": 160},
        ("36", "multiple of 8"),
        base={"model.architecture": "gpt_neox", "model.numKVHeads": None},
    ),
    Row(
        "family-has-no-positions",
        {"model.maxPositions": 512},
        {},
        ("llama", "512", "leave it out"),
    ),
    Row(
        "family-has-no-rotation",
        {"model.ropeTheta": 500000},
        {"model.ropeTheta": 10000},
        ("gpt2", "500000", "leave it out"),
        base=_GPT2,
    ),
    Row(
        "family-has-no-choice-of-biases",
        {"model.biases": False},
        {**_GPT2, "model.biases": False},
        ("llama", "biases", "leave it out"),
    ),
    Row(
        "family-has-no-scalars",
        {"model.architecture": "nanochat"},
        {"model.architecture": "nanochat_2026"},
        ("0.5", "nanochat", "leave it out"),
        base={"training.optimizer.scalarLearningRate": 0.5, "serving": None},
    ),
    Row(
        "family-is-whole",
        {"model.architecture": "nanochat_2026"},
        {"model.architecture": "nanochat"},
        ("nanochat_2026", "tensorParallel", "2", "shard with dataParallelShard"),
        base={"nodes.count": 2, "parallelism.tensorParallel": 2, "serving": None},
    ),
    Row(
        "family-is-whole",
        {"parallelism.pipelineParallel": 2},
        {"parallelism.dataParallelShard": 2},
        ("nanochat_2026", "pipelineParallel", "2", "shard with dataParallelShard"),
        base={
            "nodes.count": 2,
            "model.architecture": "nanochat_2026",
            "model.tieEmbeddings": False,
            "serving": None,
        },
    ),
    Row(
        "family-is-not-served",
        {"model.architecture": "nanochat_2026"},
        {"model.architecture": "nanochat"},
        ("last", "vLLM", "nanochat_2026", "out"),
    ),
    Row(
        "positions-cover-sequence",
        {"model.maxPositions": 255},
        {"model.maxPositions": 256},
        ("255", "256", "raise"),
        base=_GPT2,
    ),
    Row(
        "muon-names-adamw-rate",
        {"training.optimizer.name": "Muon"},
        _MUON,
        ("Muon", "set adamwLearningRate"),
    ),
    Row(
        "muon-has-its-fields",
        {"training.optimizer.adamwLearningRate": 3e-3},
        _MUON,
        ("AdamW", "choose Muon"),
    ),
    Row(
        "muon-has-its-fields",
        {"training.optimizer.momentum": 0.9},
        {"training.optimizer.momentum": 0.9, **_MUON},
        ("AdamW", "choose Muon"),
    ),
    Row(
        "output-rate-has-output",
        {"model.tieEmbeddings": True},
        {"model.tieEmbeddings": False},
        ("0.004", "embeddingLearningRate"),
        base={"training.optimizer.outputLearningRate": 0.004},
    ),
    Row(
        "muon-whole-matrices",
        {"parallelism.tensorParallel": 2},
        {"parallelism.dataParallelReplicate": 2},
        ("2", "choose AdamW"),
        base=_MUON,
    ),
    Row(
        "tokenizer-one-source",
        {"tokenizer": {}},
        {"tokenizer": {"path": "tokenizers/a"}},
        ("missing", "exactly one"),
    ),
    Row(
        "tokenizer-one-source",
        {"tokenizer.path": "tokenizers/a"},
        {},
        ("both set", "exactly one"),
    ),
    Row(
        "tokenizer-fits-model",
        {"tokenizer.train.vocabSize": 4097},
        {"tokenizer.train.vocabSize": 4096},
        ("4097", "4096", "raise"),
    ),
    Row(
        "sources-unique",
        {"data.sources": _sources("a", "b", "a")},
        {"data.sources": _sources("a", "b", "c")},
        ("a", "its own"),
    ),
    Row(
        "sources-weighted",
        {"data.sources": _sources("a", "b", a=1)},
        {"data.sources": _sources("a", "b", a=1, b=3)},
        ("a", "give each one"),
    ),
    Row(
        "length-one-unit",
        {"training.tokens": 1e6},
        {"training.tokens": 1e6, "training.steps": None},
        ("both set", "exactly one"),
    ),
    Row(
        "length-one-unit",
        {"training.steps": None},
        {"training.steps": 1},
        ("missing", "exactly one"),
    ),
    Row(
        "interval-bounds-ordered",
        {"checkpoint": {"interval": "auto", "minInterval": 20, "maxInterval": 19}},
        {"checkpoint": {"interval": "auto", "minInterval": 20, "maxInterval": 20}},
        ("20", "19", "raise"),
    ),
    Row(
        "wandb-online-has-key",
        {"training.wandb.mode": "online"},
        {"training.wandb.mode": "online", "training.wandb.apiKeySecret": {"name": "wandb"}},
        ("online", "Secret"),
    ),
    Row(
        "straggler-replacement-excludes",
        {"recovery": {"excludeNodeAfter": 0, "stragglers": {"action": "Replace"}}},
        {"recovery": {"excludeNodeAfter": 1, "stragglers": {"action": "Replace"}}},
        ("excludeNodeAfter", "Report"),
    ),
    Row(
        "shard-degree-not-zero",
        {"parallelism": {"dataParallelShard": 0}},
        {"parallelism": {"dataParallelShard": 2}},
        ("0", "-1"),
    ),
    Row(
        "mesh-fills-world",
        {"parallelism": {"dataParallelShard": 3}},
        {"parallelism": {"dataParallelShard": 2}},
        ("3 ranks", "2", "product"),
    ),
    Row(
        "mesh-fills-world",
        {"parallelism": {"dataParallelReplicate": 3}},
        {"parallelism": {"dataParallelReplicate": 2}},
        ("3 ranks", "4", "product"),
        base=_FOUR_NODES,
    ),
    Row(
        "batch-divides",
        {"training.globalBatchSize": 15},
        {"training.globalBatchSize": 14},
        ("15", "2", "multiple"),
    ),
    Row(
        "batch-divides",
        {"training.localBatchSize": 3},
        {"training.localBatchSize": 4},
        ("16", "6", "multiple"),
    ),
    Row("spares-within-count", {"nodes.spares": 3}, {"nodes.spares": 2}, ("3", "2", "lower")),
    Row("min-nodes-within-count", {"nodes.min": 3}, {"nodes.min": 2}, ("3", "2", "lower")),
    Row(
        "min-nodes-have-mesh",
        {"nodes.min": 3},
        {"nodes.min": 2},
        ("min 3", "16", "choose one"),
        base=_FOUR_NODES,
    ),
    Row(
        "min-nodes-have-mesh",
        {"nodes.min": 3},
        {"nodes.min": 2},
        ("min 3", "parts whole", "choose one"),
        base={"parallelism": {"pipelineParallel": 2}, **_UNTIED, **_FOUR_NODES},
    ),
    Row(
        "min-nodes-have-mesh",
        {"nodes.min": 6},
        {"nodes.min": 4},
        ("min 6", "12", "choose one"),
        base={
            "nodes.count": 8,
            "training.globalBatchSize": 12,
            "parallelism": {"pipelineParallel": 2},
            **_UNTIED,
        },
    ),
    Row(
        "tensor-parallel-divides-heads",
        {"parallelism": {"tensorParallel": 4}},
        {"parallelism": {"tensorParallel": 2}},
        ("4", "numKVHeads", "divisor"),
        base=_FOUR_NODES,
    ),
    Row(
        "tensor-parallel-divides-sequence",
        {"parallelism": {"tensorParallel": 2}, "training.sequenceLength": 257},
        {"parallelism": {"tensorParallel": 2}, "training.sequenceLength": 258},
        ("2", "sequenceLength 257", "divisor"),
        base=_FOUR_NODES,
    ),
    Row(
        "context-parallel-divides-sequence",
        {"training.sequenceLength": 384},
        {"training.sequenceLength": 512},
        ("2", "384", "multiple"),
        base={"parallelism": {"contextParallel": 2}},
    ),
    Row(
        "pipeline-fits-layers",
        {"model.numLayers": 1},
        {"model.numLayers": 2},
        ("2", "1", "layer"),
        base={"parallelism": {"pipelineParallel": 2}, **_UNTIED},
    ),
    Row(
        "pipeline-unties-embeddings",
        {"parallelism": {"pipelineParallel": 2}},
        {"parallelism": {"pipelineParallel": 2}, **_UNTIED},
        ("2", "tieEmbeddings false"),
    ),
    Row(
        "pipeline-fed",
        {"training.localBatchSize": 1},
        {"training.localBatchSize": 2},
        ("localBatchSize 1", "2", "raise"),
        base={"parallelism": {"pipelineParallel": 2}, **_UNTIED},
    ),
    Row(
        "pipeline-fed",
        {"training.globalBatchSize": 1},
        {"training.globalBatchSize": 2},
        ("localBatchSize 1", "2", "globalBatchSize"),
        base={"parallelism": {"pipelineParallel": 2}, **_UNTIED},
    ),
    Row(
        "post-training-length-trained",
        {"postTraining": [{**_SFT, "maxLength": 257}]},
        {"postTraining": [_SFT]},
        ("257", "256", "lower"),
    ),
    Row(
        "soup-ingredients-once",
        {"export.soup": _soup({}, {"run": "other"}, {"run": "other", "weight": 2})},
        {"export.soup": _soup({}, {"run": "other"}, {"run": "other", "step": 20})},
        ("twice", "once"),
    ),
    Row(
        "soup-steps-kept",
        {"export.soup": _soup({"step": 20}, {"step": 21}, {"run": "other", "step": 22})},
        {"export.soup": _soup({"step": 20}, {"step": 30}, {}, {"run": "other", "step": 22})},
        ("21", "keepSteps"),
        {"checkpoint.keepSteps": [20], "checkpoint.keepEvery": 15},
    ),
    Row(
        "post-training-unique",
        {"postTraining": _post("a", "a")},
        {"postTraining": _post("a", "b")},
        ("a", "its own"),
    ),
    Row(
        "post-training-names-free",
        {"postTraining": _post("last")},
        {"postTraining": _post("first")},
        ("last", "another"),
    ),
    Row(
        "serving-from-known",
        {"serving.from": "dpo"},
        {"serving.from": "sft"},
        ("dpo", "use one of"),
    ),
    Row(
        "sources-some-weight",
        {"data.sources": _sources("a", "b", a=0, b=0)},
        {"data.sources": _sources("a", "b", a=0, b=1)},
        ("a", "b", "positive"),
    ),
    Row(
        "curriculum-in-steps",
        {"training.steps": None, "training.tokens": 1e6},
        {"training.steps": 11},
        ("1 segments", "set steps"),
        base={_CURRICULUM: [{"fromStep": 10}]},
    ),
    Row(
        "curriculum-in-order",
        {_CURRICULUM: [{"fromStep": 9}, {"fromStep": 9}]},
        {_CURRICULUM: [{"fromStep": 9}, {"fromStep": 10}]},
        ("[9, 9]", "after the one before"),
    ),
    Row(
        "curriculum-below-steps",
        {_CURRICULUM: [{"fromStep": 240}]},
        {_CURRICULUM: [{"fromStep": 239}]},
        ("240", "before the end"),
    ),
    Row(
        "curriculum-sources-known",
        {_CURRICULUM: _weights("a", "c")},
        {_CURRICULUM: _weights("a", "b")},
        ("[9]", "use one of"),
        base={"data.sources": _sources("a", "b")},
    ),
    Row(
        "curriculum-sources-once",
        {_CURRICULUM: _weights("a", "a")},
        {_CURRICULUM: _weights("a", "b")},
        ("[9]", "give each one"),
        base={"data.sources": _sources("a", "b")},
    ),
    Row(
        "curriculum-fits-positions",
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 512}]},
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 512}], "model.maxPositions": 512},
        ("[9]", "set model.maxPositions"),
        base=_GPT2,
    ),
    Row(
        "curriculum-has-rotation",
        {_CURRICULUM: [{"fromStep": 9, "ropeTheta": 500000}]},
        {_CURRICULUM: [{"fromStep": 9, "learningRate": 0.001}]},
        ("[9]", "gpt2", "leave it out"),
        base=_GPT2,
    ),
    Row(
        "curriculum-batch-divides",
        {_CURRICULUM: [{"fromStep": 9, "globalBatchSize": 13}]},
        {_CURRICULUM: [{"fromStep": 9, "globalBatchSize": 14}]},
        ("[9]", "2", "multiple"),
    ),
    Row(
        "curriculum-batch-divides",
        {_CURRICULUM: [{"fromStep": 9, "globalBatchSize": 20}, {"fromStep": 11}]},
        {_CURRICULUM: [{"fromStep": 9, "globalBatchSize": 20, "localBatchSize": 2}]},
        ("[9]", "2", "multiple"),
        base={"training.localBatchSize": 4},
    ),
    Row(
        "curriculum-pipeline-fed",
        {_CURRICULUM: [{"fromStep": 9, "localBatchSize": 1}]},
        {_CURRICULUM: [{"fromStep": 9, "localBatchSize": 2}]},
        ("[9]", "pipelineParallel 2", "raise it"),
        base={**_UNTIED, "parallelism": {"pipelineParallel": 2}},
    ),
    Row(
        "curriculum-sequence-splits",
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 257}]},
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 258}]},
        ("[9]", "tensorParallel 2", "multiple"),
        base={"parallelism": {"tensorParallel": 2}},
    ),
    Row(
        "curriculum-context-divides",
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 640}]},
        {_CURRICULUM: [{"fromStep": 9, "sequenceLength": 768}]},
        ("[9]", "contextParallel 2", "multiple"),
        base={"parallelism": {"contextParallel": 2}},
    ),
    Row(
        "post-training-length-trained",
        {"postTraining": [{"name": "sft", "steps": 1, "maxLength": 513}]},
        {"postTraining": [{"name": "sft", "steps": 1, "maxLength": 512}]},
        ("512", "513", "lower it"),
        base={_CURRICULUM: [{"fromStep": 9, "sequenceLength": 512}, {"fromStep": 10}]},
    ),
    Row(
        "serving-devices-divide-heads",
        {"serving.devices": 3},
        {"serving.devices": 2},
        ("3", "4", "divisor"),
    ),
    Row(
        "serving-length-trained",
        {"serving.maxModelLength": 257},
        {"serving.maxModelLength": 256},
        ("257", "256", "lower"),
    ),
    Row(
        "name-fits-children",
        {"metadata.name": "a" * 41},
        {"metadata.name": "a" * 40},
        ("41", "choose at most 40"),
    ),
    Row(
        "name-fits-children",
        {"metadata.name": "a.b"},
        {"metadata.name": "a-b"},
        ("a.b", "choose"),
    ),
)


@dataclass(frozen=True)
class Edit:
    """A change of a started run: one that is refused, and a neighbour that is not."""

    rule: str
    bad: Changes
    good: Changes
    trained: bool = False  # the run has its Training and one PostTraining artifact
    found: tuple[str, ...] = ("another run",)


EDITS = (
    Edit("started-storage", {"storage.claimName": "other"}, {"suspend": True}),
    Edit("started-model", {"model.dim": 136}, {"checkpoint.interval": 30}),
    Edit("started-model", {"tokenizer.train.vocabSize": 4000}, {"nodes.spares": 1}),
    Edit("started-data", {"data.heldOutFraction": 0.1}, {"data.template": {"image": "a:2"}}),
    Edit("started-data", {"data.sources": _sources("a")}, {"recovery.maxApplicationFaults": 9}),
    Edit("started-batches", {"training.seed": 2}, {"nodes.template.image": "a:2"}),
    Edit("started-batches", {"training.globalBatchSize": 8}, {"training.localBatchSize": 4}),
    Edit("started-batches", {"training.sequenceLength": 512}, {"training.wandb": None}),
    Edit("started-optimiser", {"training.optimizer.beta1": 0.8}, {"training.compile": True}),
    Edit(
        "started-optimiser",
        {"training.skipStep": {"window": 64, "deviations": 6.0}},
        {"training.localBatchSize": 1},
    ),
    Edit(
        "started-optimiser",
        {"training.precision": "bfloat16"},
        {"training.activationCheckpointing": "full"},
    ),
    Edit(
        "started-curriculum",
        {"training.curriculum": [{"fromStep": 5, "sequenceLength": 512}]},
        {"training.curriculum": [{"fromStep": 6, "sequenceLength": 512}]},
    ),
    Edit("started-device", {"nodes.deviceResource": "example.com/gpu"}, {"nodes.count": 4}),
    Edit(
        "started-device",
        {"nodes.deviceResource": "nvidia.com/gpu"},
        {"parallelism": {"dataParallelReplicate": 2}},
    ),
    Edit("started-export", {"export.dtype": "bfloat16"}, {"serving": None}),
    Edit("started-length-grows", {"training.steps": 239}, {"training.steps": 241}),
    Edit(
        "started-length-grows",
        {"training.steps": None, "training.tokens": 1e9},
        {"postTraining": _post("other")},
    ),
    Edit("trained-length-stays", {"training.steps": 241}, {"suspend": True}, trained=True),
    Edit(
        "exported-soup-stays",
        {"export.soup": _soup({}, {"run": "other"})},
        {"export.template": {"image": "a:2"}},
        trained=True,
        found=("exported already",),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": []},
        {"serving.replicas": 3},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": _post("new", "sft")},
        {"serving.replicas": 4},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit(
        "finished-post-training-stays",
        {"postTraining": [{**_SFT, "datasetPath": "chats"}]},
        {"postTraining": [{**_SFT, "template": {"image": "a:2"}}]},
        trained=True,
        found=("finished", "after them"),
    ),
    Edit("started-engine", {**_SCRIPT, "export": {"dtype": "float32"}}, {"nodes.spares": 0}),
)
