"""The rules of `spec.model.architecture`, in CEL: what a family has not, or cannot be."""

from __future__ import annotations

from pretrain_llm.contract.config import (
    BIASES_OPTIONAL,
    DEFAULT_ROPE_THETA,
    LEARNED_POSITIONS,
    SCALED,
    UNGROUPED,
    UNSERVED,
    UNSPLIT,
)

from .rule import MODEL_RANKS, Rule

FAMILIES = (
    Rule(
        "family-has-no-grouped-heads",
        "spec.model",
        f"!(self.architecture in {list(UNGROUPED)}) || !has(self.numKVHeads)"
        " || self.numKVHeads == self.numHeads",
        "architecture %s has no grouped heads, but numKVHeads is %s; leave it out, or set it to"
        " numHeads %s",
        ("self.architecture", "self.numKVHeads", "self.numHeads"),
    ),
    Rule(
        "rotary-quarter-even",
        "spec.model",
        "self.architecture != 'gpt_neox' || self.dim % self.numHeads != 0"
        " || (self.dim / self.numHeads) % 2 != 0 || (self.dim / self.numHeads) % 8 == 0",
        "dim / numHeads is %s, but gpt_neox rotates an even quarter of it; make it a multiple of 8",
        ("self.dim / self.numHeads",),
    ),
    Rule(
        "family-has-no-positions",
        "spec.model",
        f"!has(self.maxPositions) || self.architecture in {list(LEARNED_POSITIONS)}",
        "architecture %s has no table of positions, but maxPositions is %s; leave it out",
        ("self.architecture", "self.maxPositions"),
    ),
    Rule(
        "family-has-no-rotation",
        "spec.model",
        f"!(self.architecture in {list(LEARNED_POSITIONS)})"
        f" || self.ropeTheta == {DEFAULT_ROPE_THETA}",
        "architecture %s has a table of positions and rotates nothing, but ropeTheta is %s;"
        " leave it out",
        ("self.architecture", "self.ropeTheta"),
    ),
    Rule(
        "family-has-no-choice-of-biases",
        "spec.model",
        f"!has(self.biases) || self.architecture in {list(BIASES_OPTIONAL)}",
        "architecture %s has no choice of biases, but biases is %s; leave it out",
        ("self.architecture", "self.biases"),
    ),
    Rule(
        "family-has-no-scalars",
        "spec",
        "!has(self.training.optimizer.scalarLearningRate)"
        f" || self.model.architecture in {list(SCALED)}",
        "training.optimizer.scalarLearningRate %s, but architecture %s has no scalars; leave it"
        " out",
        ("self.training.optimizer.scalarLearningRate", "self.model.architecture"),
    ),
    Rule(
        "family-is-whole",
        "spec",
        f"!(self.model.architecture in {list(UNSPLIT)}) || {MODEL_RANKS} == 1",
        "architecture %s is whole on every rank, with whole sequences, but"
        " parallelism.tensorParallel is %s, pipelineParallel %s and contextParallel %s; set all to"
        " 1 and shard with dataParallelShard",
        (
            "self.model.architecture",
            "self.parallelism.tensorParallel",
            "self.parallelism.pipelineParallel",
            "self.parallelism.contextParallel",
        ),
    ),
    Rule(
        "family-is-not-served",
        "spec",
        f"!has(self.serving) || !(self.model.architecture in {list(UNSERVED)})",
        "serving from %s: vLLM has no model for architecture %s; leave serving out",
        ("self.serving.from", "self.model.architecture"),
    ),
)
