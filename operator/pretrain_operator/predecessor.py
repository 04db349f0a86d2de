"""What a deleted run of the same name has left. Pure.

A run that is deleted is gone at once; the garbage collector removes its Jobs after it, and their
pods after them, which may save for minutes. Names and attempts of the next one are the same: it
would take their verdicts for its own, and train in the same folder beside them. So it begins once
they are gone.
"""

from __future__ import annotations

from . import conditions
from .observed import KubernetesObject, Observed, Run

LOOK_AGAIN_SECONDS = 1.0


def has_left(run: Run, observed: Observed) -> bool:
    """Only of a run that has decided nothing yet: until then no child can be its own. What has no
    owner was left on purpose (`--cascade=orphan`), with its pods."""
    status = run.status
    if status.attempt or status.artifacts or conditions.state(status):
        return False
    made = [*observed.of_kind("Job"), *observed.of_kind("Deployment")]
    if any(_owner(item) not in (None, run.uid) for item in made):
        return True
    return not made and bool(observed.of_kind("Pod"))


def _owner(item: KubernetesObject) -> str | None:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
