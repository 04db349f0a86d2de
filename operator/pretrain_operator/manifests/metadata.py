"""Labels, owner and digests: what every child of a run has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .. import api, names
from ..observed import Run

Object = dict[str, Any]


def digest(value: object) -> str:
    """Of plain JSON values; equal values give equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labels(run: Run, component: str) -> dict[str, str]:
    return {
        names.MANAGED_BY_LABEL: names.MANAGER,
        names.RUN_LABEL: run.name,
        names.COMPONENT_LABEL: component,
    }


def child(
    run: Run,
    api_version: str,
    kind: str,
    name: str,
    component: str,
    *,
    owned: bool = True,
    extra_labels: Mapping[str, str] | None = None,
    **parts: Any,
) -> Object:
    """A desired object with its digest. Not owned: it outlives the run."""
    metadata: Object = {
        "name": name,
        "namespace": run.namespace,
        "labels": labels(run, component) | dict(extra_labels or {}),
    }
    if owned:
        metadata["ownerReferences"] = [_owner(run)]
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def stamped(desired: Object, **annotations: str) -> Object:
    """With annotations, among them the digest of all the rest."""
    metadata = desired["metadata"]
    marks = {names.APPLIED_ANNOTATION: digest(desired), **annotations}
    return {**desired, "metadata": {**metadata, "annotations": marks}}


def annotation(item: Mapping[str, Any], name: str) -> str | None:
    value: str | None = item["metadata"].get("annotations", {}).get(name)
    return value


def component(item: Mapping[str, Any]) -> str | None:
    value: str | None = item["metadata"].get("labels", {}).get(names.COMPONENT_LABEL)
    return value


def _owner(run: Run) -> Object:
    return {
        "apiVersion": api.API_VERSION,
        "kind": api.KIND,
        "name": run.name,
        "uid": run.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
