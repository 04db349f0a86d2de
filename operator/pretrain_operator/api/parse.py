"""An object of the API server to a `Run`. Never raises for what a user can write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from .run import Run
from .spec import AnySpec, RunSpec, ScriptSpec
from .status import RunStatus

_SHOWN_CHARACTERS = 80


def run_from_object(body: Mapping[str, Any]) -> Run:
    """A spec that does not have the agreed form becomes `spec_error`.

    A status of another form (by hand, or of another version) counts as none: everything in it is
    derived again, but for attempts and budgets, which start anew.
    """
    metadata = body["metadata"]
    spec, error = _spec(body.get("spec"))
    return Run(
        name=metadata["name"],
        namespace=metadata.get("namespace", ""),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        spec=spec,
        spec_error=error,
        status=_status(body.get("status")),
        deleting=metadata.get("deletionTimestamp") is not None,
    )


def _spec(document: Any) -> tuple[AnySpec | None, str | None]:
    """What is no JSON, as a date in a YAML file, is wrong somewhere, and told as it is."""
    try:
        text = json.dumps(document)
    except (TypeError, ValueError):
        return _validated(document)
    return _known(text)


@lru_cache(maxsize=4096)  # it is the same in every pass of a run
def _known(text: str) -> tuple[AnySpec | None, str | None]:
    return _validated(json.loads(text))


def _validated(document: Any) -> tuple[AnySpec | None, str | None]:
    is_script = isinstance(document, Mapping) and document.get("script") is not None
    kind = ScriptSpec if is_script else RunSpec
    try:
        return kind.model_validate(document), None
    except ValidationError as error:
        return None, _message(error)


def _status(document: Any) -> RunStatus:
    try:
        return RunStatus.model_validate(document or {})
    except ValidationError:
        return RunStatus()


def _message(error: ValidationError) -> str:
    """The first thing that is wrong, with the number of others."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    value = "" if first["type"] == "missing" else f" {_shown(first['input'])}"
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"spec{path}{value}: {first['msg']}; correct the field, docs/api.md lists it{others}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
