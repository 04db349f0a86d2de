"""The rules of `spec.training.curriculum`, in CEL. In Python: `pretrain_operator.curriculum`.

What a segment leaves out is as in the one before: the last that states a field is in effect.
"""

from __future__ import annotations

from pretrain_llm.contract.config import LEARNED_POSITIONS
from pretrain_llm.contract.meshes import CONTEXT_BLOCK

from .rule import INDICES, MODEL_RANKS, WORLD, Rule, cut_evenly, names, unique

_SEGMENTS = "self.training.curriculum"


def _last(field: str, first: str, condition: str = "") -> str:
    """CEL: what the last segment that states a field says, else `first`."""
    stated = f"{_SEGMENTS}.filter(t, {condition}has(t.{field}))"
    return f"[{stated}].map(l, size(l) > 0 ? l[size(l) - 1].{field} : {first})[0]"


def _in_segment(field: str, first: str) -> str:
    """CEL: what is in effect in the segment s."""
    return _last(field, first, "t.fromStep <= s.fromStep && ")


def _starts(condition: str) -> tuple[str, ...]:
    """CEL: where the segments begin that a rule refuses."""
    return (f"{_SEGMENTS}.filter(s, !({condition})).map(s, s.fromStep)",)


LAST_LENGTH = _last("sequenceLength", "self.training.sequenceLength")
_DATA_RANKS = f"({WORLD} / ({MODEL_RANKS}))"
_STATED_LOCAL = "(has(self.training.localBatchSize) ? self.training.localBatchSize : 0)"
_SEGMENT_BATCH = _in_segment("globalBatchSize", "self.training.globalBatchSize")
_SEGMENT_LOCAL = _in_segment("localBatchSize", _STATED_LOCAL)
_STATES_NO_BATCH = "!has(s.globalBatchSize) && !has(s.localBatchSize)"
_DIVIDES = f"batch % ({_DATA_RANKS} * (local > 0 ? local : 1)) == 0"
_FED = f"(local > 0 ? local : batch / {_DATA_RANKS}) >= self.parallelism.pipelineParallel"


def _of_batches(condition: str) -> str:
    """CEL: holds for the local batch (0: none is stated) and the batch in effect in s."""
    every = f"[{_SEGMENT_LOCAL}].all(local, [{_SEGMENT_BATCH}].all(batch, {condition}))"
    return f"{_STATES_NO_BATCH} || ({WORLD}) % ({MODEL_RANKS}) != 0 || {every}"


_SEGMENT_DIVIDES = _of_batches(_DIVIDES)
_SEGMENT_FED = "self.parallelism.pipelineParallel == 1 || " + _of_batches(
    f"!({_DIVIDES}) || {_FED}"
)
_SEGMENT_SPLITS = (
    "!has(s.sequenceLength) || s.sequenceLength % self.parallelism.tensorParallel == 0"
)
_SEGMENT_CUTS = f"!has(s.sequenceLength) || {cut_evenly('s.sequenceLength')}"
_SEGMENT_SOURCES = "s.weights.all(w, self.data.sources.exists(d, d.name == w.name))"
_SEGMENT_POSITIONS = (
    f"!has(s.sequenceLength) || !(self.model.architecture in {list(LEARNED_POSITIONS)})"
    " || s.sequenceLength <= (has(self.model.maxPositions) ? self.model.maxPositions"
    " : self.training.sequenceLength)"
)
_SEGMENT_ROTATES = f"!has(s.ropeTheta) || !(self.model.architecture in {list(LEARNED_POSITIONS)})"

CURRICULUM = (
    Rule(
        "curriculum-in-steps",
        "spec.training",
        "size(self.curriculum) == 0 || has(self.steps)",
        "curriculum has %s segments that begin at steps, but the length is in tokens;"
        " set steps in place of tokens",
        ("size(self.curriculum)",),
    ),
    Rule(
        "curriculum-in-order",
        "spec.training",
        f"[{INDICES}].all(i, i + 1 >= size(self.curriculum)"
        " || self.curriculum[i].fromStep < self.curriculum[i + 1].fromStep)",
        "curriculum has segments from step %s; let each begin after the one before",
        ("self.curriculum.map(s, s.fromStep)",),
    ),
    Rule(
        "curriculum-below-steps",
        "spec.training",
        "!has(self.steps) || self.curriculum.all(s, s.fromStep < self.steps)",
        "curriculum has segments from step %s, but steps is %s; let each begin before the end",
        ("self.curriculum.map(s, s.fromStep)", "has(self.steps) ? self.steps : 0"),
    ),
    Rule(
        "curriculum-sources-known",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_SOURCES})",
        "training.curriculum from step %s weighs a source that is not in data.sources;"
        " use one of %s",
        (*_starts(_SEGMENT_SOURCES), names("self.data.sources")),
    ),
    Rule(
        "curriculum-sources-once",
        "spec.training",
        f"self.curriculum.all(s, {unique('s.weights')})",
        "curriculum from step %s has two weights of one source; give each one",
        (f"self.curriculum.filter(s, !({unique('s.weights')})).map(s, s.fromStep)",),
    ),
    Rule(
        "curriculum-fits-positions",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_POSITIONS})",
        "training.curriculum from step %s has a sequenceLength that exceeds the table of positions;"
        " set model.maxPositions to the longest",
        _starts(_SEGMENT_POSITIONS),
    ),
    Rule(
        "curriculum-has-rotation",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_ROTATES})",
        "training.curriculum from step %s has a ropeTheta, but architecture %s rotates nothing;"
        " leave it out",
        (*_starts(_SEGMENT_ROTATES), "self.model.architecture"),
    ),
    Rule(
        "curriculum-batch-divides",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_DIVIDES})",
        "training.curriculum from step %s has a globalBatchSize that is not divisible by"
        " data-parallel ranks (%s) x localBatchSize; choose a multiple of it",
        (*_starts(_SEGMENT_DIVIDES), _DATA_RANKS),
    ),
    Rule(
        "curriculum-pipeline-fed",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_FED})",
        "training.curriculum from step %s has a localBatchSize less than"
        " parallelism.pipelineParallel %s; each stage needs a sequence: raise it (or"
        " globalBatchSize, where it is not set)",
        (*_starts(_SEGMENT_FED), "self.parallelism.pipelineParallel"),
    ),
    Rule(
        "curriculum-sequence-splits",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_SPLITS})",
        "training.curriculum from step %s has a sequenceLength that parallelism.tensorParallel %s"
        " does not divide; choose a multiple of it",
        (*_starts(_SEGMENT_SPLITS), "self.parallelism.tensorParallel"),
    ),
    Rule(
        "curriculum-context-divides",
        "spec",
        f"{_SEGMENTS}.all(s, {_SEGMENT_CUTS})",
        "training.curriculum from step %s has a sequenceLength that parallelism.contextParallel %s"
        f" does not cut evenly; choose a multiple of {CONTEXT_BLOCK} x contextParallel and of 2 x"
        " contextParallel x tensorParallel %s",
        (
            *_starts(_SEGMENT_CUTS),
            "self.parallelism.contextParallel",
            "self.parallelism.tensorParallel",
        ),
    ),
)
