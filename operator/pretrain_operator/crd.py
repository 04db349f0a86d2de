"""The CRD and docs/api.md, generated from the API types and rules; never edited by hand.

python -m pretrain_operator.crd           write both files
python -m pretrain_operator.crd --print   print the CRD
python -m pretrain_operator.crd --check   exit 1 where a file is not what this would write
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from . import api
from .api.rules import RULES
from .api.spec import AnySpec
from .api.status import RunStatus

_ROOT = Path(__file__).parents[2]
CRD_FILE = _ROOT / "charts" / "pretrain-operator" / "files" / "pretrainruns.yaml"
DOCS_FILE = _ROOT / "docs" / "api.md"

Schema = dict[str, Any]

COLUMNS = (
    ("State", "string", ".status.conditions[?(@.type=='Succeeded')].reason"),
    ("Step", "integer", ".status.training.step"),
    ("Loss", "number", ".status.training.loss"),
    ("Tokens/s", "number", ".status.training.tokensPerSecond"),
    ("Goodput", "number", ".status.training.goodput"),
    ("Restarts", "integer", ".status.budgets.total"),
    ("Nodes", "integer", ".status.training.nodes"),
    ("Checkpoint", "integer", ".status.checkpoints.latest.step"),
    ("Age", "date", ".metadata.creationTimestamp"),
)

WIDE_COLUMNS = (("Wanted", "integer", ".status.training.wantedNodes"),)  # with -o wide

# Lists that clients may merge by key: (path in the schema, keys).
_LIST_MAPS = {"conditions": ["type"]}


def structural(schema: Schema, definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """A JSON schema in the form that Kubernetes takes: no references, titles, nulls or unions."""
    if "$ref" in schema:
        siblings = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**definitions[schema["$ref"].rpartition("/")[2]], **siblings}
    if "anyOf" in schema and "x-kubernetes-int-or-string" not in schema:
        choice = next(item for item in schema["anyOf"] if item.get("type") != "null")
        siblings = {key: value for key, value in schema.items() if key != "anyOf"}
        return structural({**choice, **siblings}, definitions, defaults=defaults)
    result = {key: schema[key] for key in _KEPT if key in schema}
    _bounds(schema, result)
    if defaults and schema.get("default") is not None:
        result["default"] = _without_empty(schema["default"])
    if "properties" in schema:
        result["properties"] = {
            key: structural(value, definitions, defaults=defaults)
            for key, value in schema["properties"].items()
        }
        if "required" in schema:
            result["required"] = schema["required"]
    elif schema.get("additionalProperties") is True:
        result["x-kubernetes-preserve-unknown-fields"] = True
    elif "additionalProperties" in schema:
        values = schema["additionalProperties"]
        result["additionalProperties"] = structural(values, definitions, defaults=defaults)
    if "items" in schema:
        result["items"] = structural(schema["items"], definitions, defaults=defaults)
    return result


_KEPT = (
    "type",
    "description",
    "enum",
    "pattern",
    "format",
    "anyOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "x-kubernetes-int-or-string",
)


def _without_empty(value: Any) -> Any:
    """A default without what its own fields' defaults say; rules are checked on it as it is."""
    if not isinstance(value, dict):
        return value
    cleaned = {key: _without_empty(item) for key, item in value.items()}
    return {key: item for key, item in cleaned.items() if item not in (None, {}, [])}


def _bounds(schema: Schema, result: Schema) -> None:
    """OpenAPI 3.0 writes an exclusive bound as a flag beside the bound."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if bound in schema:
            result[bound] = schema[bound]
        elif exclusive in schema:
            result[bound], result[exclusive] = schema[exclusive], True
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if result.get("type") == "integer":
        result["format"] = "int64"


def root_schema() -> Schema:
    """Schema of a whole object, with the rules at their places."""
    root: Schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _model_schema(AnySpec, defaults=True),
            # Without defaults: what the operator has not written is not there.
            "status": _model_schema(RunStatus, defaults=False),
        },
    }
    for name, keys in _LIST_MAPS.items():
        field = root["properties"]["status"]["properties"][name]
        field |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    for rule in RULES:
        schema = _at(root, rule.path)
        schema.setdefault("x-kubernetes-validations", []).append(
            {"rule": rule.rule, "messageExpression": rule.message_expression, "message": rule.name}
        )
    return root


@cache
def spec_schema() -> Schema:
    """Of `spec` alone. Shared: to be read only."""
    schema: Schema = root_schema()["properties"]["spec"]
    return schema


def _model_schema(model: type[AnySpec | RunStatus], *, defaults: bool) -> Schema:
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs")
    result = structural(schema, definitions, defaults=defaults)
    result["description"] = (model.__doc__ or "").strip()
    return result


def _at(schema: Schema, path: str) -> Schema:
    for name in filter(None, path.split(".")):
        schema = schema["properties"][name]
    return schema


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    version = {
        "name": api.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root_schema()},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            *({"name": name, "type": kind, "jsonPath": path} for name, kind, path in COLUMNS),
            *(
                {"name": name, "type": kind, "jsonPath": path, "priority": 1}
                for name, kind, path in WIDE_COLUMNS
            ),
        ],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{api.PLURAL}.{api.GROUP}"},
        "spec": {
            "group": api.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": api.KIND,
                "listKind": f"{api.KIND}List",
                "plural": api.PLURAL,
                "singular": api.KIND.lower(),
                "shortNames": [api.SHORT_NAME],
                "categories": ["all", "pretrain"],
            },
            "versions": [version],
        },
    }


class PlainDumper(yaml.SafeDumper):
    """Writes no anchors: equal parts are written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def crd_yaml() -> str:
    head = "# Generated by `make crd` from operator/pretrain_operator/api; do not edit.\n"
    return head + yaml.dump(definition(), Dumper=PlainDumper, sort_keys=False, width=100)


def reference() -> str:
    """docs/api.md."""
    schema = root_schema()
    parts = [_HEAD]
    for part in ("spec", "status"):
        parts.append(f"\n## {part}\n\n| field | type | default | meaning |\n|---|---|---|---|\n")
        parts.extend(_rows(schema["properties"][part], part))
    parts.append("\n## Rules\n\nChecked by the API server; the message says what was found.\n\n")
    parts.append("| name | at | must hold |\n|---|---|---|\n")
    for rule in RULES:
        cel = rule.rule.replace("|", "\\|")
        parts.append(f"| {rule.name} | {rule.path or 'the object'} | `{cel}` |\n")
    return "".join(parts)


_HEAD = f"""# {api.KIND} ({api.API_VERSION})

<!-- Generated by `make crd` from operator/pretrain_operator/api; do not edit. -->

Short name `{api.SHORT_NAME}`. **Bold** fields are required. `[]` marks the entries of a list.
"""


def _rows(schema: Schema, path: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        shown = f"**{here}**" if name in required else here
        default = field.get("default")
        default = "" if default in (None, [], "") or isinstance(default, dict) else f"`{default}`"
        text = " ".join(field.get("description", "").split()).replace("|", "\\|")
        yield f"| {shown} | {_kind(field)} | {default} | {text} |\n"
        yield from _rows(field, here)
        if "items" in field:
            yield from _rows(field["items"], f"{here}[]")


def _kind(field: Schema) -> str:
    if field.get("x-kubernetes-int-or-string") and "maximum" not in field:
        return "quantity"
    if "items" in field:
        return f"list of {_kind(field['items'])}"
    if "x-kubernetes-int-or-string" in field:
        kind = f"`{field['pattern'].strip('^$')}` or integer"
    elif "enum" in field:
        kind = " or ".join(f"`{item}`" for item in field["enum"])
    else:
        kind = field["type"]
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return str(kind)
    left = "" if low is None else f"{low} {'<' if field.get('exclusiveMinimum') else '≤'} "
    right = "" if high is None else f" {'<' if field.get('exclusiveMaximum') else '≤'} {high}"
    return f"{kind}, {left}n{right}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="pretrain_operator.crd", description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the CRD")
    parser.add_argument("--check", action="store_true", help="exit 1 where a file is stale")
    options = parser.parse_args(arguments)
    if options.print:
        print(crd_yaml(), end="")
        return 0
    wanted = {CRD_FILE: crd_yaml(), DOCS_FILE: reference()}
    stale = [file for file, text in wanted.items() if not file.exists() or file.read_text() != text]
    if options.check:
        for file in stale:
            print(f"{file.relative_to(_ROOT)} is stale: run `make crd`", file=sys.stderr)
        return 1 if stale else 0
    for file in stale:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted[file])
    return 0


if __name__ == "__main__":
    sys.exit(main())
