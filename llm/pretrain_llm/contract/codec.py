"""Frozen dataclasses to JSON and back: camelCase keys, unknown keys ignored, errors with a path.

Unknown keys are ignored so that an older pod can read a newer operator's document.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


class DecodeError(ValueError):
    """A document does not have the agreed form; the message names the path and the value."""


def camel_case(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in tail)


def encode(value: Any) -> Any:
    """JSON-ready form of a dataclass; fields that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {camel_case(name): encode(item) for name, item in pairs if item is not None}
    if isinstance(value, dict):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], document: Any, path: str = "") -> T:
    """The dataclass `kind` read from a JSON document. Raises DecodeError."""
    if not isinstance(document, dict):
        raise DecodeError(f"{path or 'document'}: expected an object, found {document!r}")
    hints = _hints(typing.cast("Any", kind))
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        key = camel_case(field.name)
        here = f"{path}.{key}" if path else key
        if document.get(key) is not None:
            values[field.name] = _decode_value(hints[field.name], document[key], here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DecodeError(f"{here}: required, but missing")
    try:
        return kind(**values)
    except ValueError as error:
        raise DecodeError(f"{path or kind.__name__}: {error}") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """To resolve them takes longer than all else of a report."""
    return typing.get_type_hints(kind)


def _decode_value(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        choices = [choice for choice in arguments if choice is not type(None)]
        return _decode_value(choices[0], value, path)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast("type[Any]", hint), value, path)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise DecodeError(f"{path}: expected a list, found {value!r}")
        return tuple(_decode_value(arguments[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise DecodeError(f"{path}: expected an object, found {value!r}")
        return {key: _decode_value(arguments[1], v, f"{path}.{key}") for key, v in value.items()}
    return _decode_scalar(hint, value, path)


def _decode_scalar(hint: Any, value: Any, path: str) -> Any:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and (
        not isinstance(value, hint) or (hint is int and isinstance(value, bool))
    ):
        raise DecodeError(f"{path}: expected {hint.__name__}, found {value!r}")
    if hint is float:
        raise DecodeError(f"{path}: expected a number, found {value!r}")
    return value


def to_json(value: Any) -> str:
    """Canonical JSON (sorted keys, no spaces): equal values give equal text."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"))


def from_json(kind: type[T], text: str | bytes) -> T:
    """Raises DecodeError, also where the text is not JSON."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DecodeError(f"not JSON: {error}") from error
    return decode(kind, document)


def has_key(text: str | bytes, key: str) -> bool:
    """Whether the document is an object with something at `key`. Raises DecodeError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DecodeError(f"not JSON: {error}") from error
    return isinstance(document, dict) and document.get(key) is not None
