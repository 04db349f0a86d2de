"""What a specification must obey across fields: CEL that the API server evaluates.

Schema bounds are in `spec`; these are the rules that span fields. Each message names the field, the
value found and the remedy. `config` checks the same rules in Python, for an API server with an
older CRD; a test evaluates both sides on the same rows, so that they cannot drift apart.
What an edit may change is the API server's alone: see `transition_rules`.
"""

from __future__ import annotations

import re

from pretrain_llm.contract.meshes import CONTEXT_BLOCK

from .curriculum_rules import CURRICULUM, LAST_LENGTH
from .family_rules import FAMILIES
from .rule import MODEL_RANKS, WORLD, Rule, cut_evenly, names, unique
from .script_rules import ENGINE, SCRIPT, unless_script
from .soup_rules import SOUP
from .source_rules import SOURCES
from .transition_rules import TRANSITIONS

_GIVEN_RANKS = f"{MODEL_RANKS} * self.parallelism.dataParallelReplicate"
_BATCH_UNIT = (
    f"({WORLD} / ({MODEL_RANKS})"
    " * (has(self.training.localBatchSize) ? self.training.localBatchSize : 1))"
)
_LOCAL_BATCH = (
    "(has(self.training.localBatchSize) ? self.training.localBatchSize"
    f" : self.training.globalBatchSize / ({WORLD} / ({MODEL_RANKS})))"
)
_MIN_WORLD = "self.nodes.min * self.nodes.devicesPerNode"
_MIN_DATA_RANKS = f"{_MIN_WORLD} / ({MODEL_RANKS})"
_SHORTEST_INTERVAL = "(self.interval == 'auto' ? self.minInterval : int(self.interval))"
_KV_HEADS = "(has(self.model.numKVHeads) ? self.model.numKVHeads : self.model.numHeads)"


SHAPES = (
    Rule(
        "heads-divide-dim",
        "spec.model",
        "self.dim % self.numHeads == 0",
        "dim %s is not divisible by numHeads %s; choose a dim that is a multiple of numHeads",
        ("self.dim", "self.numHeads"),
    ),
    Rule(
        "head-dim-even",
        "spec.model",
        "self.dim % self.numHeads != 0 || (self.dim / self.numHeads) % 2 == 0",
        "dim / numHeads is %s, but rotary embeddings need an even number; choose another numHeads",
        ("self.dim / self.numHeads",),
    ),
    Rule(
        "kv-heads-divide-heads",
        "spec.model",
        "!has(self.numKVHeads) || self.numHeads % self.numKVHeads == 0",
        "numHeads %s is not divisible by numKVHeads %s; choose a numKVHeads that divides numHeads",
        ("self.numHeads", "self.numKVHeads"),
    ),
    Rule(
        "positions-cover-sequence",
        "spec",
        "!has(self.model.maxPositions) || self.model.maxPositions >= self.training.sequenceLength",
        "model.maxPositions %s is less than training.sequenceLength %s; raise it, or leave it out",
        ("self.model.maxPositions", "self.training.sequenceLength"),
    ),
    Rule(
        "tokenizer-one-source",
        "spec.tokenizer",
        "has(self.train) != has(self.path)",
        "train and path are %s; set exactly one of them",
        ("has(self.train) ? 'both set' : 'both missing'",),
    ),
    Rule(
        "tokenizer-fits-model",
        "spec",
        "!has(self.tokenizer.train) || self.tokenizer.train.vocabSize <= self.model.vocabSize",
        "tokenizer.train.vocabSize %s exceeds model.vocabSize %s; raise the model's or lower it",
        ("self.tokenizer.train.vocabSize", "self.model.vocabSize"),
    ),
    *SOURCES,
    Rule(
        "length-one-unit",
        "spec.training",
        "has(self.steps) != has(self.tokens)",
        "steps and tokens are %s; set exactly one of them",
        ("has(self.steps) ? 'both set' : 'both missing'",),
    ),
    Rule(
        "muon-names-adamw-rate",
        "spec.training.optimizer",
        "self.name != 'Muon' || has(self.adamwLearningRate)",
        "name Muon leaves embeddings, output layer, norms and biases to AdamW, for which"
        " learningRate %s is not; set adamwLearningRate",
        ("self.learningRate",),
    ),
    Rule(
        "muon-has-its-fields",
        "spec.training.optimizer",
        "self.name == 'Muon' || !has(self.adamwLearningRate) && !has(self.momentum)"
        " && !has(self.adamwWeightDecay)",
        "name %s has no adamwLearningRate, adamwWeightDecay and momentum; leave them out, or choose"
        " Muon",
        ("self.name",),
    ),
    Rule(
        "output-rate-has-output",
        "spec",
        "!has(self.training.optimizer.outputLearningRate) || !self.model.tieEmbeddings",
        "training.optimizer.outputLearningRate %s, but model.tieEmbeddings makes the output layer"
        " the embedding; set embeddingLearningRate instead",
        ("self.training.optimizer.outputLearningRate",),
    ),
    Rule(
        "interval-bounds-ordered",
        "spec.checkpoint",
        "self.minInterval <= self.maxInterval",
        "minInterval %s exceeds maxInterval %s; lower it, or raise the other",
        ("self.minInterval", "self.maxInterval"),
    ),
    Rule(
        "wandb-online-has-key",
        "spec.training",
        "!has(self.wandb) || self.wandb.mode != 'online' || has(self.wandb.apiKeySecret)",
        "wandb.mode online needs wandb.apiKeySecret; name a Secret or choose mode offline",
    ),
    Rule(
        "memory-more-often",
        "spec.checkpoint",
        f"!has(self.memory) || self.memory.interval < {_SHORTEST_INTERVAL}",
        "memory.interval %s is not less than interval (with auto: minInterval) %s; lower it, or"
        " leave checkpoint.memory out",
        ("self.memory.interval", _SHORTEST_INTERVAL),
    ),
    Rule(
        "straggler-replacement-excludes",
        "spec.recovery",
        "self.stragglers.action != 'Replace' || self.excludeNodeAfter > 0",
        "stragglers.action Replace leaves nodes, but excludeNodeAfter 0 leaves none; set it to 1 or"
        " more, or choose Report",
    ),
)

MESH = (
    Rule(
        "shard-degree-not-zero",
        "spec.parallelism",
        "self.dataParallelShard != 0",
        "dataParallelShard 0 means nothing; set a positive number, or -1 for the rest",
    ),
    Rule(
        "mesh-fills-world",
        "spec",
        "self.parallelism.dataParallelShard > 0"
        f" ? {_GIVEN_RANKS} * self.parallelism.dataParallelShard == {WORLD}"
        f" : ({WORLD}) % ({_GIVEN_RANKS}) == 0",
        "parallelism asks for %s ranks, but nodes.count x nodes.devicesPerNode is %s;"
        " make the product of the degrees equal to it, or let dataParallelShard -1 fill it",
        (
            f"self.parallelism.dataParallelShard > 0 ? {_GIVEN_RANKS}"
            f" * self.parallelism.dataParallelShard : {_GIVEN_RANKS}",
            WORLD,
        ),
    ),
    Rule(
        "batch-divides",
        "spec",
        f"({WORLD}) % ({MODEL_RANKS}) != 0 || self.training.globalBatchSize % {_BATCH_UNIT} == 0",
        "training.globalBatchSize %s is not divisible by data-parallel ranks x localBatchSize,"
        " which is %s; choose a multiple of it",
        ("self.training.globalBatchSize", _BATCH_UNIT),
    ),
    Rule(
        "spares-within-count",
        "spec.nodes",
        "self.spares <= self.count",
        "spares %s exceeds count %s; lower it",
        ("self.spares", "self.count"),
    ),
    Rule(
        "min-nodes-within-count",
        "spec.nodes",
        "!has(self.min) || self.min <= self.count",
        "min %s exceeds count %s; lower it, or leave it out",
        ("self.min", "self.count"),
    ),
    Rule(
        "min-nodes-have-mesh",
        "spec",
        "!has(self.nodes.min) || self.nodes.min > self.nodes.count"
        f" || ({WORLD}) % ({MODEL_RANKS}) != 0"
        f" || self.training.globalBatchSize % {_BATCH_UNIT} != 0"
        f" || ({_MIN_WORLD}) % ({MODEL_RANKS}) == 0"
        f" && self.training.globalBatchSize % ({_MIN_DATA_RANKS}) == 0"
        " && (self.parallelism.pipelineParallel == 1"
        f" || self.training.globalBatchSize / ({_MIN_DATA_RANKS})"
        f" % {_LOCAL_BATCH} == 0)",
        "nodes.min %s has no mesh that keeps the model's parts whole and divides"
        " training.globalBatchSize %s evenly; choose one that does, for example nodes.count %s",
        ("self.nodes.min", "self.training.globalBatchSize", "self.nodes.count"),
    ),
    Rule(
        "tensor-parallel-divides-heads",
        "spec",
        "self.model.numHeads % self.parallelism.tensorParallel == 0"
        f" && {_KV_HEADS} % self.parallelism.tensorParallel == 0",
        "parallelism.tensorParallel %s does not divide model.numHeads %s and numKVHeads %s;"
        " choose a divisor of both",
        ("self.parallelism.tensorParallel", "self.model.numHeads", _KV_HEADS),
    ),
    Rule(
        "tensor-parallel-divides-sequence",
        "spec",
        "self.training.sequenceLength % self.parallelism.tensorParallel == 0",
        "parallelism.tensorParallel %s does not divide training.sequenceLength %s, which it shards;"
        " choose a divisor of it",
        ("self.parallelism.tensorParallel", "self.training.sequenceLength"),
    ),
    Rule(
        "context-parallel-divides-sequence",
        "spec",
        cut_evenly("self.training.sequenceLength"),
        "parallelism.contextParallel %s does not cut training.sequenceLength %s evenly; choose a"
        f" multiple of {CONTEXT_BLOCK} x contextParallel and of 2 x contextParallel x"
        " tensorParallel %s",
        (
            "self.parallelism.contextParallel",
            "self.training.sequenceLength",
            "self.parallelism.tensorParallel",
        ),
    ),
    Rule(
        "muon-whole-matrices",
        "spec",
        "self.training.optimizer.name != 'Muon' || self.parallelism.tensorParallel == 1",
        "parallelism.tensorParallel %s splits the matrices that Muon needs whole; set it to 1 and"
        " shard with dataParallelShard, or choose AdamW",
        ("self.parallelism.tensorParallel",),
    ),
    Rule(
        "pipeline-fits-layers",
        "spec",
        "self.parallelism.pipelineParallel <= self.model.numLayers",
        "parallelism.pipelineParallel %s exceeds model.numLayers %s; each stage needs a layer",
        ("self.parallelism.pipelineParallel", "self.model.numLayers"),
    ),
    Rule(
        "pipeline-unties-embeddings",
        "spec",
        "self.parallelism.pipelineParallel == 1 || !self.model.tieEmbeddings",
        "parallelism.pipelineParallel %s cannot share the embedding of its first stage with its"
        " last; set model.tieEmbeddings false or pipelineParallel 1",
        ("self.parallelism.pipelineParallel",),
    ),
    Rule(
        "pipeline-fed",
        "spec",
        f"self.parallelism.pipelineParallel == 1 || ({WORLD}) % ({MODEL_RANKS}) != 0"
        f" || self.training.globalBatchSize % {_BATCH_UNIT} != 0"
        f" || {_LOCAL_BATCH} >= self.parallelism.pipelineParallel",
        "training.localBatchSize %s is less than parallelism.pipelineParallel %s; each stage needs"
        " a sequence: raise it (or globalBatchSize, where it is not set)",
        (_LOCAL_BATCH, "self.parallelism.pipelineParallel"),
    ),
)

LATER_STAGES = (
    Rule(
        "post-training-unique",
        "spec",
        unique("self.postTraining"),
        "postTraining has two entries of one name: %s; give each its own",
        (names("self.postTraining"),),
    ),
    Rule(
        "post-training-names-free",
        "spec",
        "self.postTraining.all(p, !(p.name in ['last', 'export']))",
        "postTraining has an entry named last or export, which serving.from uses: %s;"
        " give it another name",
        (names("self.postTraining"),),
    ),
    Rule(
        "post-training-length-trained",
        "spec",
        f"self.postTraining.all(p, !has(p.maxLength) || p.maxLength <= {LAST_LENGTH})",
        "postTraining has a maxLength that exceeds training.sequenceLength %s: %s;"
        " lower it, or leave it out",
        (
            LAST_LENGTH,
            "self.postTraining.filter(p, has(p.maxLength)).map(p, p.maxLength)",
        ),
    ),
    Rule(
        "serving-from-known",
        "spec",
        "!has(self.serving) || self.serving.from in ['last', 'export']"
        " || self.postTraining.exists(p, p.name == self.serving.from)",
        "serving.from %s is not last, export or the name of a postTraining entry; use one of them",
        ("self.serving.from",),
    ),
    Rule(
        "serving-devices-divide-heads",
        "spec",
        "!has(self.serving) || self.serving.devices == 0"
        " || self.model.numHeads % self.serving.devices == 0",
        "serving.devices %s does not divide model.numHeads %s; choose a divisor",
        ("self.serving.devices", "self.model.numHeads"),
    ),
    Rule(
        "serving-length-trained",
        "spec",
        "!has(self.serving) || !has(self.serving.maxModelLength)"
        f" || self.serving.maxModelLength <= {LAST_LENGTH}",
        "serving.maxModelLength %s exceeds training.sequenceLength %s; lower it",
        ("self.serving.maxModelLength", LAST_LENGTH),
    ),
)

MAX_NAME_LENGTH = 40  # the longest child is <run>-train-<attempt>-<slot>, a DNS label of 63
NAME_PATTERN = re.compile(f"^[a-z]([-a-z0-9]{{0,{MAX_NAME_LENGTH - 2}}}[a-z0-9])?$")
IDENTITY = (
    Rule(
        "name-fits-children",
        "",
        f"self.metadata.name.matches('{NAME_PATTERN.pattern}')",
        "metadata.name %s has %s characters; so that the names of its children fit, choose at most"
        f" {MAX_NAME_LENGTH} lower-case letters, digits and dashes, a letter first",
        ("self.metadata.name", "size(self.metadata.name)"),
    ),
)

_OF_MODELS = SHAPES + FAMILIES + MESH + CURRICULUM + SOUP + LATER_STAGES + TRANSITIONS
RULES = (*map(unless_script, _OF_MODELS), *IDENTITY, *ENGINE, *SCRIPT)
