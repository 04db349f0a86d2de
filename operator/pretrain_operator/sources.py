"""`spec.data.sources`: its rules in Python, by the names of `api.source_rules`. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .api.spec import DEFAULT_TEXT_FIELD, RunSpec
from .spec_error import SpecError, repeated

_FIELD = "spec.data.sources"


def source_violations(spec: RunSpec) -> Iterator[SpecError]:
    sources = spec.data.sources
    if (name := repeated([source.name for source in sources])) is not None:
        yield SpecError("sources-unique", _FIELD, name, "give each its own name")
    weighted = [source.name for source in sources if source.weight is not None]
    if 0 < len(weighted) < len(sources):
        remedy = "have a weight, others none; give each one, or none"
        yield SpecError("sources-weighted", _FIELD, ", ".join(weighted), remedy)
    if weighted and not any(source.weight for source in sources):
        remedy = "all have weight 0; give one that is read from the first step a positive one"
        yield SpecError("sources-some-weight", _FIELD, ", ".join(weighted), remedy)
    yield from _chat_violations(spec)


def _chat_violations(spec: RunSpec) -> Iterator[SpecError]:
    sources = spec.data.sources
    for number, source in enumerate(sources):
        if source.format == "chat" and source.text_field != DEFAULT_TEXT_FIELD:
            remedy = "a chat has messages and no text field; leave it out"
            field = f"{_FIELD}[{number}].textField"
            yield SpecError("chats-have-messages", field, source.text_field, remedy)
    if spec.tokenizer.train is not None and all(source.format == "chat" for source in sources):
        found = ", ".join(source.name for source in sources)
        remedy = "are all chats, and tokenizer.train needs text; add a source of text, or set path"
        yield SpecError("tokenizer-has-text", _FIELD, found, remedy)
