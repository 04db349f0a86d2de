"""The rules of a run whose workers are a program of the user's, in CEL. In Python: `..script`."""

from __future__ import annotations

from dataclasses import replace

from .rule import STARTED, Rule

# What a run has either of: these, or a script.
TRAINED_PARTS = ("model", "tokenizer", "data", "training")


def unless_script(rule: Rule) -> Rule:
    """The same rule, where it speaks of what only a run has that torchtitan trains."""
    if rule.path == "spec":
        return replace(rule, rule=f"has(self.script) || ({rule.rule})")
    if rule.path == "" and any(f"elf.spec.{part}" in rule.rule for part in TRAINED_PARTS):
        either = "has(self.spec.script) || has(oldSelf.spec.script)"
        return replace(rule, rule=f"{either} || ({rule.rule})")
    return rule


def _set(*conditions: tuple[str, str]) -> str:
    """CEL: the names of the fields whose condition holds."""
    parts = (f"({condition} ? ['{name}'] : [])" for name, condition in conditions)
    return " + ".join(parts)


_MISSING = _set(*((part, f"!has(self.{part})") for part in TRAINED_PARTS))
_BESIDE = _set(
    *((part, f"has(self.{part})") for part in (*TRAINED_PARTS, "serving")),
    ("postTraining", "size(self.postTraining) > 0"),
)
_SPREAD = _set(
    ("parallelism.dataParallelReplicate", "self.parallelism.dataParallelReplicate != 1"),
    ("parallelism.dataParallelShard", "self.parallelism.dataParallelShard != -1"),
    ("parallelism.tensorParallel", "self.parallelism.tensorParallel != 1"),
    ("parallelism.pipelineParallel", "self.parallelism.pipelineParallel != 1"),
    ("parallelism.contextParallel", "self.parallelism.contextParallel != 1"),
    ("export.dtype", "self.export.dtype != 'bfloat16'"),
    ("export.soup", "has(self.export.soup)"),
)
_INSIGHT = _set(
    ("checkpoint.memory", "has(self.checkpoint.memory)"),
    ("recovery.loss.spikeFactor", "has(self.recovery.loss.spikeFactor)"),
    ("recovery.stragglers.action", "self.recovery.stragglers.action == 'Replace'"),
)

# The schema cannot say it: of a run without a script, these are required. In Python: the types.
ENGINE = (
    Rule(
        "model-or-script",
        "spec",
        f"has(self.script) || size({_MISSING}) == 0",
        "%s: Required value; set them, or script to run a program of your own",
        (_MISSING,),
    ),
)
SCRIPT = (
    Rule(
        "script-alone",
        "spec",
        f"!has(self.script) || size({_BESIDE}) == 0",
        "script is the whole training, but %s is set: export, post-training and serving need"
        " checkpoints of torchtitan's; leave it out, or leave script out",
        (_BESIDE,),
    ),
    Rule(
        "script-spreads-itself",
        "spec",
        f"!has(self.script) || size({_SPREAD}) == 0",
        "script spreads its model and writes its files itself, but %s is set; leave it out, and"
        " give the program its own arguments",
        (_SPREAD,),
    ),
    Rule(
        "script-keeps-its-state",
        "spec",
        f"!has(self.script) || size({_INSIGHT}) == 0",
        "script has its own state, batches and timing, but %s needs torchtitan's; leave it out",
        (_INSIGHT,),
    ),
)
ENGINE_STAYS = Rule(
    "started-engine",
    "",
    f"!({STARTED}) || has(self.spec.script) == has(oldSelf.spec.script)",
    "spec.script was added or removed, but the run has started; change it back, or create another"
    " run under a new name",
)
