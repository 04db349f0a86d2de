"""What an edit of a started run may not change, in CEL: the API server alone knows the old one."""

from __future__ import annotations

from .rule import INDICES, STARTED, Rule
from .script_rules import ENGINE_STAYS

_TRAINED = (
    "has(oldSelf.status) && has(oldSelf.status.artifacts)"
    " && oldSelf.status.artifacts.exists(a, a.stage == 'Training')"
)
_STEP = (
    "(has(oldSelf.status) && has(oldSelf.status.training) && has(oldSelf.status.training.step)"
    " ? oldSelf.status.training.step : 0)"
)


def _begun(run: str) -> str:
    return f"{run}.spec.training.curriculum.filter(s, s.fromStep <= {_STEP})"


def _same(path: str) -> str:
    """CEL: a field below spec, which may be absent, is as it was."""
    new, old = f"self.spec.{path}", f"oldSelf.spec.{path}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def _frozen(name: str, *paths: str) -> Rule:
    return Rule(
        name,
        "",
        f"!({STARTED}) || ({' && '.join(_same(path) for path in paths)})",
        f"{', '.join(f'spec.{path}' for path in paths)}: one was changed, but the run has started"
        " (attempt %s); change it back, or create another run under a new name",
        ("has(self.status) && has(self.status.attempt) ? self.status.attempt : 0",),
    )


def _grows(path: str) -> str:
    new, old = f"self.spec.{path}", f"oldSelf.spec.{path}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} >= {old})"


_ENTRY_FIELDS = ("name", "method", "steps", "batchSize", "learningRate")
_OPTIONAL_ENTRY_FIELDS = ("maxLength", "datasetPath")


def _same_in_entry(name: str) -> str:
    new, old = (f"{spec}.postTraining[i].{name}" for spec in ("self.spec", "oldSelf.spec"))
    if name not in _OPTIONAL_ENTRY_FIELDS:
        return f"{new} == {old}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


_SAME_ENTRY = " && ".join(map(_same_in_entry, _ENTRY_FIELDS + _OPTIONAL_ENTRY_FIELDS))

# Frozen is what is trained. How it is trained (nodes, mesh, batch of a rank, recomputation) may
# change: checkpoints are resharded, and the order of samples does not depend on the world.
TRANSITIONS = (
    ENGINE_STAYS,
    _frozen("started-storage", "storage.claimName"),
    _frozen("started-model", "model", "tokenizer"),
    _frozen("started-data", "data.sources", "data.heldOutFraction"),
    _frozen(
        "started-batches",
        "training.sequenceLength",
        "training.globalBatchSize",
        "training.seed",
    ),
    _frozen(
        "started-optimiser",
        "training.optimizer",
        "training.schedule",
        "training.gradientClipNorm",
        "training.zLossWeight",
        "training.skipStep",
        "training.precision",
    ),
    Rule(
        "started-curriculum",
        "",
        f"!({STARTED}) || {_begun('self')} == {_begun('oldSelf')}",
        "spec.training.curriculum: a segment that has begun was changed (step %s); change it back,"
        " let new ones begin later, or create another run under a new name",
        (_STEP,),
    ),
    _frozen("started-device", "nodes.deviceResource"),
    _frozen("started-export", "export.dtype"),
    Rule(
        "started-length-grows",
        "",
        f"!({STARTED}) || ({_grows('training.steps')} && {_grows('training.tokens')})",
        "spec.training.steps or tokens shrank or changed its unit, but the run has started;"
        " only raise it, or create another run under a new name",
    ),
    Rule(
        "trained-length-stays",
        "",
        f"!({_TRAINED}) || ({_same('training.steps')} && {_same('training.tokens')})",
        "spec.training.steps or tokens was changed, but training has ended;"
        " change it back, or create another run under a new name",
    ),
    Rule(
        "exported-soup-stays",
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.artifacts)"
        " || !oldSelf.status.artifacts.exists(a, a.stage == 'Export')"
        f" || {_same('export.soup')}",
        "spec.export.soup was changed, but the model is exported already; change it back, or export"
        " from another run under a new name",
    ),
    Rule(
        "finished-post-training-stays",
        "",
        "!has(oldSelf.status) || !has(oldSelf.status.artifacts)"
        f" || [{INDICES}].all(i,"
        " i >= size(oldSelf.status.artifacts.filter(a, a.stage == 'PostTraining'))"
        " || i < size(self.spec.postTraining) && i < size(oldSelf.spec.postTraining)"
        f" && {_SAME_ENTRY})",
        "spec.postTraining changed an entry that has finished: %s;"
        " keep finished ones first and unchanged, and add new ones after them",
        ("self.status.artifacts.filter(a, a.stage == 'PostTraining').size()",),
    ),
)
