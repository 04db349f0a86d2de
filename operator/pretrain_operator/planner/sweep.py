"""A grid of runs from one recipe: every combination of the values that some fields take. Pure.

A child's name has a digest of its values in it, so the same values always make the same run, also
in a grid that has grown since.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from .. import crd
from ..api.rules import MAX_NAME_LENGTH
from ..api.spec import RunSpec
from ..names import SWEEP_LABEL, SWEEP_VALUES_ANNOTATION
from ..spec_error import repeated
from .assumptions import Assumptions
from .plan import plan_run
from .recipe import RecipeError, manifest, recipe

MAX_RUNS = 256
_DIGEST_CHARACTERS = 8
_PART = re.compile(r"([^.\[\]]+)((?:\[\d+\])*)")


class SweepError(ValueError):
    """What is wrong with the grid or a run of it, a line each."""


@dataclass(frozen=True)
class Axis:
    path: str  # below spec, for example training.optimizer.learningRate
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Child:
    name: str
    values: Mapping[str, Any]  # by path
    body: Mapping[str, Any]  # the PretrainRun


def axis(text: str) -> Axis:
    """Of `path=value,value`; a value is JSON, or else text. Raises SweepError."""
    path, found, values = text.partition("=")
    if not found or not values:
        raise SweepError(f"--set {text}: write path=value,value; for example training.seed=1,2,3")
    parsed = tuple(_values(values))
    if len({json.dumps(value) for value in parsed}) < len(parsed):
        raise SweepError(f"--set {text}: the same value twice; leave one out")
    return Axis(path.removeprefix("spec."), parsed)


def _values(text: str) -> list[Any]:
    try:
        found: list[Any] = json.loads(f"[{text}]")
    except ValueError:
        return [_value(part) for part in text.split(",")]
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def children(text: str, axes: Sequence[Axis], name: str | None = None) -> tuple[Child, ...]:
    """Every combination, the last axis varying fastest; `name`: of the sweep, else the recipe's.

    Raises RecipeError where the recipe is refused as it is, SweepError where a path leads nowhere,
    and where a run would be refused or fail, by the rules of `pretrain plan`.
    """
    base = manifest(text)
    recipe(text)
    sweep = name or str(base["metadata"]["name"])
    _check_axes(axes)
    grid = list(itertools.product(*(each.values for each in axes)))
    if len(grid) > MAX_RUNS:
        raise SweepError(f"{len(grid)} runs, over {MAX_RUNS}; leave values out")
    found = tuple(
        _child(base, sweep, dict(zip((each.path for each in axes), values, strict=True)))
        for values in grid
    )
    if problems := [line for child in found for line in _problems(child)]:
        raise SweepError("\n".join(problems))
    return found


def _check_axes(axes: Sequence[Axis]) -> None:
    if not axes:
        raise SweepError("nothing varies; give --set path=value,value, once or more")
    paths = [each.path for each in axes]
    if twice := repeated(paths):
        raise SweepError(f"--set {twice} is given twice; list all its values in one")
    if wrong := next((path for path in paths if not _is_legal(path)), None):
        raise SweepError(f"--set {wrong}: no such field{_nearest(wrong)}; docs/api.md lists them")


def child_name(sweep: str, values: Mapping[str, Any]) -> str:
    """Legal for every legal name of a sweep; the order of the values makes no difference."""
    text = json.dumps(values, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    return f"{sweep[: MAX_NAME_LENGTH - _DIGEST_CHARACTERS - 1].rstrip('-')}-{digest}"


def _child(base: Mapping[str, Any], sweep: str, values: Mapping[str, Any]) -> Child:
    body = copy.deepcopy(dict(base))
    for path, value in values.items():
        _set(body["spec"], path, value)
    name = child_name(sweep, values)
    kept = base["metadata"]
    body["metadata"] = {
        **{key: kept[key] for key in ("namespace",) if key in kept},
        "name": name,
        "labels": {**kept.get("labels", {}), SWEEP_LABEL: sweep},
        "annotations": {
            **kept.get("annotations", {}),
            SWEEP_VALUES_ANNOTATION: json.dumps(values, sort_keys=True),
        },
    }
    return Child(name, values, body)


def _problems(child: Child) -> Iterator[str]:
    """By the rules of `pretrain plan`, with the values that make the run break them."""
    told = ", ".join(f"{path}={json.dumps(value)}" for path, value in child.values.items())
    try:
        spec = recipe(yaml.safe_dump(child.body)).spec
    except RecipeError as error:
        yield from (f"{told}: {line}" for line in str(error).splitlines())
        return
    if isinstance(spec, RunSpec):
        yield from (f"{told}: {problem}" for problem in plan_run(spec, Assumptions()).problems)


# Paths


def _parts(path: str) -> list[str | int]:
    """training.curriculum[0].fromStep: names of fields, numbers of entries."""
    parts: list[str | int] = []
    for name, numbers in _PART.findall(path):
        parts += [name, *(int(number) for number in re.findall(r"\d+", numbers))]
    return parts


def _is_legal(path: str) -> bool:
    """Whether the schema has a field there; what Kubernetes defines is not looked into."""
    schema = crd.spec_schema()
    if not path or ".".join(m.group() for m in _PART.finditer(path)) != path:
        return False
    for part in _parts(path):
        if "properties" not in schema and "items" not in schema:
            return "type" not in schema or schema["type"] == "object"
        found = _under(schema, part)
        if found is None:
            return False
        schema = found
    return True


def _under(schema: Mapping[str, Any], part: str | int) -> Any:
    """None where there is no such field."""
    if isinstance(part, int):
        return schema.get("items")
    return schema.get("properties", {}).get(part)


def _nearest(path: str) -> str:
    known = list(_legal_paths(crd.spec_schema(), ""))
    lowered = {legal.lower(): legal for legal in known}
    close = difflib.get_close_matches(path.lower(), lowered, n=1, cutoff=0.5)
    return f"; did you mean {lowered[close[0]]}?" if close else ""


def _legal_paths(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if path:
        yield path
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield from _legal_paths(field, here)
        if "items" in field:
            yield from _legal_paths(field["items"], f"{here}[0]")


def _set(spec: dict[str, Any], path: str, value: Any) -> None:
    """Raises SweepError where the recipe has no such entry of a list."""
    parts = _parts(path)
    target: Any = spec
    for part, following in itertools.pairwise(parts):
        _check_place(target, part, path)
        if isinstance(target, dict):
            target = target.setdefault(part, [] if isinstance(following, int) else {})
        else:
            target = target[part]
    _check_place(target, parts[-1], path)
    target[parts[-1]] = value


def _check_place(target: Any, part: str | int, path: str) -> None:
    """The path is legal; what the recipe has there may still be something else, or shorter."""
    if isinstance(part, str) and isinstance(target, dict):
        return
    if isinstance(part, str) or not isinstance(target, list):
        raise SweepError(f"--set {path}: the recipe has {json.dumps(target)} before {part}")
    if part >= len(target):
        found = f"entry [{part}] of a list that has {len(target)} in the recipe"
        raise SweepError(f"--set {path}: {found}; name one that is there")


# Results


@dataclass(frozen=True)
class Result:
    """How far one run of a sweep has come."""

    name: str
    values: Mapping[str, Any]
    state: str
    step: int | None
    total_steps: int | None
    loss: float | None


def best_first(results: Iterable[Result]) -> list[Result]:
    """By the loss of the last step, the lowest first; runs without one last, by name."""
    return sorted(results, key=lambda r: (r.loss is None, r.loss or 0.0, r.name))


def titles(paths: Iterable[str]) -> dict[str, str]:
    """The shortest ends of the paths that tell them apart."""
    known = list(paths)
    return {path: _title(path, known) for path in known}


def _title(path: str, paths: Sequence[str]) -> str:
    parts = path.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts) + 1))
    return next((end for end in ends if sum(_ends_in(other, end) for other in paths) == 1), path)


def _ends_in(path: str, end: str) -> bool:
    return path == end or path.endswith(f".{end}")
