"""A PretrainRun from YAML, checked offline as the API server would. Reads no file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .. import api, crd
from ..api.parse import run_from_object
from ..api.spec import AnySpec
from ..config import violations


class RecipeError(ValueError):
    """What is wrong with the recipe, a line each."""


@dataclass(frozen=True)
class Recipe:
    name: str
    spec: AnySpec


def recipe(text: str) -> Recipe:
    """The one PretrainRun of a manifest; other objects in it are left alone. Raises RecipeError."""
    written = manifest(text)
    body = {**written, "metadata": {"name": written["metadata"]["name"]}, "status": None}
    unknown = [
        f"{path} is no field of a PretrainRun; docs/api.md lists them" for path in _unknown(body)
    ]
    run = run_from_object(body)
    if run.spec is None:
        raise RecipeError("\n".join([*unknown, str(run.spec_error)]))
    broken = [str(error) for error in violations(run.name, run.spec)]
    if unknown or broken:
        raise RecipeError("\n".join([*unknown, *broken]))
    return Recipe(run.name, run.spec)


def manifest(text: str) -> Mapping[str, Any]:
    """The one PretrainRun as it is written; only its kind, version and name are looked at.

    Raises RecipeError.
    """
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise RecipeError(f"this is no YAML: {error}") from error
    runs = [item for item in documents if isinstance(item, dict) and item.get("kind") == api.KIND]
    if len(runs) != 1:
        raise RecipeError(f"{len(runs)} objects of kind {api.KIND}; give a manifest with one")
    body = runs[0]
    if body.get("apiVersion") != api.API_VERSION:
        version = body.get("apiVersion")
        raise RecipeError(f"apiVersion {version}: this version plans {api.API_VERSION}; change it")
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise RecipeError("metadata.name is missing; name the run")
    found: Mapping[str, Any] = body
    return found


def _unknown(body: Mapping[str, Any]) -> Iterator[str]:
    """kubectl refuses these; the API server alone would drop them without a word."""
    yield from _unknown_fields(body.get("spec"), crd.spec_schema(), "spec")


def _unknown_fields(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")
    fields = schema.get("properties")
    if not isinstance(value, dict) or fields is None:
        return
    for name, item in value.items():
        if name in fields:
            yield from _unknown_fields(item, fields[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"
