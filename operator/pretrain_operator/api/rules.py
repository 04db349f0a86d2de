"""What a specification must obey across fields: CEL that the API server evaluates.

Schema bounds are in `spec`; these are the rules that span fields. Each message names the field, the
value found and the remedy. `config` checks the same rules in Python, for an API server with an
older CRD; a test evaluates both sides on the same rows, so that they cannot drift apart.
Transition rules (`started`) are the API server's alone: only it knows the old object.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One `x-kubernetes-validations` entry."""

    name: str  # what tests and config call it
    path: str  # of the object that it is written at; empty: the root
    rule: str  # CEL, true where the object is valid
    message: str  # CEL, a string; the part after the field's own path


_WORLD = "self.nodes.count * self.nodes.devicesPerNode"
_MODEL_RANKS = "self.parallelism.tensorParallel * self.parallelism.pipelineParallel"
_GIVEN_RANKS = f"{_MODEL_RANKS} * self.parallelism.dataParallelReplicate"
_BATCH_UNIT = (
    f"({_WORLD} / ({_MODEL_RANKS})"
    " * (has(self.training.localBatchSize) ? self.training.localBatchSize : 1))"
)
_HEADS = "[self.model.numHeads, has(self.model.numKVHeads) ? self.model.numKVHeads : 0]"


def _unique(items: str) -> str:
    return f"{items}.all(a, {items}.exists_one(b, a.name == b.name))"


SHAPES = (
    Rule(
        "heads-divide-dim",
        "spec.model",
        "self.dim % self.numHeads == 0",
        "'dim ' + string(self.dim) + ' is not divisible by numHeads ' + string(self.numHeads)"
        " + '; choose a dim that is a multiple of numHeads'",
    ),
    Rule(
        "head-dim-even",
        "spec.model",
        "self.dim % self.numHeads != 0 || (self.dim / self.numHeads) % 2 == 0",
        "'dim / numHeads is ' + string(self.dim / self.numHeads)"
        " + ', but rotary embeddings need an even number; choose another numHeads'",
    ),
    Rule(
        "kv-heads-divide-heads",
        "spec.model",
        "!has(self.numKVHeads) || self.numHeads % self.numKVHeads == 0",
        "'numHeads ' + string(self.numHeads) + ' is not divisible by numKVHeads '"
        " + string(self.numKVHeads) + '; choose a numKVHeads that divides numHeads'",
    ),
    Rule(
        "tokenizer-one-source",
        "spec.tokenizer",
        "has(self.train) != has(self.path)",
        "has(self.train) ? 'train and path are both set; keep one of them'"
        " : 'neither train nor path is set; set one of them'",
    ),
    Rule(
        "tokenizer-fits-model",
        "spec",
        "!has(self.tokenizer.train) || self.tokenizer.train.vocabSize <= self.model.vocabSize",
        "'tokenizer.train.vocabSize ' + string(self.tokenizer.train.vocabSize)"
        " + ' exceeds model.vocabSize ' + string(self.model.vocabSize)"
        " + '; make the model\\'s at least as large'",
    ),
    Rule(
        "sources-unique",
        "spec.data",
        _unique("self.sources"),
        "'sources has two entries of one name (' + self.sources.map(s, s.name).join(', ')"
        " + '); give each its own'",
    ),
    Rule(
        "length-one-unit",
        "spec.training",
        "has(self.steps) != has(self.tokens)",
        "has(self.steps) ? 'steps ' + string(self.steps) + ' and tokens ' + string(self.tokens)"
        " + ' are both set; keep one of them' : 'neither steps nor tokens is set; set one of them'",
    ),
    Rule(
        "wandb-online-has-key",
        "spec.training",
        "!has(self.wandb) || self.wandb.mode != 'online' || has(self.wandb.apiKeySecret)",
        "'wandb.mode online needs wandb.apiKeySecret; name a Secret or choose mode offline'",
    ),
)

MESH = (
    Rule(
        "shard-degree-not-zero",
        "spec.parallelism",
        "self.dataParallelShard != 0",
        "'dataParallelShard 0 means nothing; set a positive number, or -1 for the rest'",
    ),
    Rule(
        "mesh-fills-world",
        "spec",
        f"self.parallelism.dataParallelShard > 0 ? {_GIVEN_RANKS}"
        f" * self.parallelism.dataParallelShard == {_WORLD} : ({_WORLD}) % ({_GIVEN_RANKS}) == 0",
        "'parallelism asks for ' + string(self.parallelism.dataParallelShard > 0 ?"
        f" {_GIVEN_RANKS} * self.parallelism.dataParallelShard : {_GIVEN_RANKS})"
        f" + ' ranks, but nodes.count x nodes.devicesPerNode is ' + string({_WORLD})"
        " + '; make the product of the degrees equal to it, or let dataParallelShard -1 fill it'",
    ),
    Rule(
        "batch-divides",
        "spec",
        f"({_WORLD}) % ({_MODEL_RANKS}) != 0 || self.training.globalBatchSize % {_BATCH_UNIT} == 0",
        "'training.globalBatchSize ' + string(self.training.globalBatchSize) + ' is not divisible"
        f" by data-parallel ranks x localBatchSize, which is ' + string({_BATCH_UNIT})"
        " + '; choose a multiple of it'",
    ),
    Rule(
        "tensor-parallel-divides-heads",
        "spec",
        f"{_HEADS}.all(n, n % self.parallelism.tensorParallel == 0)",
        "'parallelism.tensorParallel ' + string(self.parallelism.tensorParallel)"
        " + ' does not divide model.numHeads ' + string(self.model.numHeads)"
        " + (has(self.model.numKVHeads) ? ' and numKVHeads ' + string(self.model.numKVHeads) : '')"
        " + '; choose a divisor of both'",
    ),
    Rule(
        "pipeline-fits-layers",
        "spec",
        "self.parallelism.pipelineParallel <= self.model.numLayers",
        "'parallelism.pipelineParallel ' + string(self.parallelism.pipelineParallel)"
        " + ' exceeds model.numLayers ' + string(self.model.numLayers)"
        " + '; each stage needs a layer'",
    ),
    Rule(
        "pipeline-unties-embeddings",
        "spec",
        "self.parallelism.pipelineParallel == 1 || !self.model.tieEmbeddings",
        "'parallelism.pipelineParallel ' + string(self.parallelism.pipelineParallel)"
        " + ' cannot share the embedding of its first stage with its last;"
        " set model.tieEmbeddings false or pipelineParallel 1'",
    ),
)

LATER_STAGES = (
    Rule(
        "post-training-unique",
        "spec",
        _unique("self.postTraining"),
        "'postTraining has two entries of one name ('"
        " + self.postTraining.map(p, p.name).join(', ') + '); give each its own'",
    ),
    Rule(
        "post-training-names-free",
        "spec",
        "self.postTraining.all(p, !(p.name in ['last', 'export']))",
        "'postTraining has an entry named last or export, which serving.from uses;"
        " give it another name'",
    ),
    Rule(
        "serving-from-known",
        "spec",
        "!has(self.serving) || self.serving.from in ['last', 'export']"
        " || self.postTraining.exists(p, p.name == self.serving.from)",
        "'serving.from ' + self.serving.from"
        " + ' is not last, export or the name of a postTraining entry; use one of them'",
    ),
    Rule(
        "serving-devices-divide-heads",
        "spec",
        "!has(self.serving) || self.serving.devices == 0"
        " || self.model.numHeads % self.serving.devices == 0",
        "'serving.devices ' + string(self.serving.devices) + ' does not divide model.numHeads '"
        " + string(self.model.numHeads) + '; choose a divisor'",
    ),
    Rule(
        "serving-length-trained",
        "spec",
        "!has(self.serving) || !has(self.serving.maxModelLength)"
        " || self.serving.maxModelLength <= self.training.sequenceLength",
        "'serving.maxModelLength ' + string(self.serving.maxModelLength)"
        " + ' exceeds training.sequenceLength ' + string(self.training.sequenceLength)"
        " + '; lower it'",
    ),
)

NAME_PATTERN = "^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
IDENTITY = (
    Rule(
        "name-fits-children",
        "",
        f"self.metadata.name.matches('{NAME_PATTERN}')",
        "'metadata.name ' + self.metadata.name + ' has ' + string(size(self.metadata.name))"
        " + ' characters; the names of its children need 40 or fewer: lower-case letters, digits"
        " and dashes, a letter first'",
    ),
)

# A run has started once it has an attempt or an artifact.
_STARTED = "(has(oldSelf.status) && (has(oldSelf.status.attempt) && oldSelf.status.attempt > 0"
_STARTED += " || has(oldSelf.status.artifacts) && size(oldSelf.status.artifacts) > 0))"
_TRAINED = "(has(oldSelf.status) && has(oldSelf.status.artifacts)"
_TRAINED += " && oldSelf.status.artifacts.exists(a, a.stage == 'Training'))"


def _same(path: str) -> str:
    """CEL: the field, which may be absent, is as it was."""
    parent, _, leaf = path.rpartition(".")
    new, old = f"self.spec.{parent}.{leaf}", f"oldSelf.spec.{parent}.{leaf}"
    return f"(has({new}) == has({old}) && (!has({new}) || {new} == {old}))"


def _frozen(name: str, *paths: str) -> Rule:
    shown = ", ".join(f"spec.{path}" for path in paths)
    rule = " && ".join(
        _same(path) if "." in path else f"self.spec.{path} == oldSelf.spec.{path}" for path in paths
    )
    return Rule(
        name,
        "",
        f"!{_STARTED} || ({rule})",
        f"'{shown} cannot change once the run has started (attempt '"
        " + string(has(self.status) && has(self.status.attempt) ? self.status.attempt : 0)"
        " + '); create another run under a new name'",
    )



TRANSITIONS = (
    _frozen("started-storage", "storage.claimName"),
    _frozen("started-model", "model", "tokenizer"),
    _frozen("started-data", "data.sources", "data.heldOutFraction"),
    _frozen(
        "started-batches",
        "training.sequenceLength",
        "training.globalBatchSize",
        "training.localBatchSize",
        "training.seed",
    ),
    _frozen(
        "started-optimiser",
        "training.optimizer",
        "training.schedule",
        "training.gradientClipNorm",
        "training.precision",
        "training.activationCheckpointing",
        "training.compile",
    ),
    _frozen("started-world", "nodes.count", "nodes.devicesPerNode", "nodes.deviceResource"),
    _frozen("started-mesh", "parallelism"),
    _frozen("started-export", "export.dtype"),
    Rule(
        "started-length-grows",
        "",
        f"!{_STARTED} || ("
        "(!has(self.spec.training.steps) || !has(oldSelf.spec.training.steps)"
        " || self.spec.training.steps >= oldSelf.spec.training.steps)"
        " && (!has(self.spec.training.tokens) || !has(oldSelf.spec.training.tokens)"
        " || self.spec.training.tokens >= oldSelf.spec.training.tokens)"
        " && has(self.spec.training.steps) == has(oldSelf.spec.training.steps))",
        "'spec.training.steps or tokens of a started run can only grow, in the same unit;"
        " keep them, or create another run under a new name'",
    ),
    Rule(
        "trained-length-stays",
        "",
        f"!{_TRAINED} || ({_same('training.steps')} && {_same('training.tokens')})",
        "'spec.training.steps and tokens cannot change once training has ended;"
        " create another run under a new name'",
    ),
    Rule(
        "finished-post-training-stays",
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.artifacts)"
        " || [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15].all(i,"
        " i >= size(oldSelf.status.artifacts.filter(a, a.stage == 'PostTraining'))"
        " || (i < size(self.spec.postTraining) && i < size(oldSelf.spec.postTraining)"
        " && self.spec.postTraining[i] == oldSelf.spec.postTraining[i]))",
        "'spec.postTraining has finished entries; keep them first and unchanged,"
        " and add new ones after them'",
    ),
)

RULES = SHAPES + MESH + LATER_STAGES + IDENTITY + TRANSITIONS
