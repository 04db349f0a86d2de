"""The claim of a run that asks for one. Never owned: what was trained outlives the run."""

from __future__ import annotations

from ..observed import Run
from .metadata import Object, child, stamped


def claim(run: Run) -> Object | None:
    assert run.spec is not None
    storage = run.spec.storage
    if storage.create is None:
        return None
    spec: Object = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": storage.create.size}},
    }
    if storage.create.storage_class_name is not None:
        spec["storageClassName"] = storage.create.storage_class_name
    return stamped(
        child(
            run,
            "v1",
            "PersistentVolumeClaim",
            storage.claim_name,
            "storage",
            owned=False,
            spec=spec,
        )
    )
