"""The rules of `spec.export.soup`, in CEL. In Python: `pretrain_operator.soup`."""

from __future__ import annotations

from .rule import Rule

_SOUP = "self.export.soup.ingredients"
_OWN_STEPS = f"{_SOUP}.filter(i, !has(i.run) && has(i.step))"
_LOST_STEPS = (
    f"{_OWN_STEPS}.filter(i, !(has(self.training.steps) && i.step == self.training.steps)"
    " && !(has(self.checkpoint.keepEvery) && i.step % self.checkpoint.keepEvery == 0)"
    " && !(has(self.checkpoint.keepSteps) && i.step in self.checkpoint.keepSteps))"
)
_SAME_PLACE = " && ".join(
    f"has(a.{name}) == has(b.{name}) && (!has(a.{name}) || a.{name} == b.{name})"
    for name in ("run", "step")
)

SOUP = (
    Rule(
        "soup-ingredients-once",
        "spec.export",
        "!has(self.soup) || self.soup.ingredients.all(a,"
        f" self.soup.ingredients.exists_one(b, {_SAME_PLACE}))",
        "soup.ingredients has a checkpoint twice; name each once, and give it a weight",
    ),
    Rule(
        "soup-steps-kept",
        "spec",
        f"!has(self.export.soup) || size({_LOST_STEPS}) == 0",
        "export.soup.ingredients has a step of this run that is not kept: %s; add it to"
        " checkpoint.keepSteps, or leave step out for the last",
        (f"{_LOST_STEPS}.map(i, i.step)",),
    ),
)
