"""The rules of `spec.data.sources`, in CEL. In Python: `pretrain_operator.sources`."""

from __future__ import annotations

from .rule import Rule, names, unique
from .spec import DEFAULT_TEXT_FIELD

_CHATS_NAMING_A_FIELD = (
    f"self.sources.filter(s, s.format == 'chat' && s.textField != '{DEFAULT_TEXT_FIELD}')"
)

SOURCES = (
    Rule(
        "sources-unique",
        "spec.data",
        unique("self.sources"),
        "sources has two entries of one name: %s; give each its own",
        (names("self.sources"),),
    ),
    Rule(
        "sources-weighted",
        "spec.data",
        "self.sources.all(s, has(s.weight)) || !self.sources.exists(s, has(s.weight))",
        "sources: %s have a weight, others none; give each one, or none",
        (names("self.sources.filter(s, has(s.weight))"),),
    ),
    Rule(
        "sources-some-weight",
        "spec.data",
        "!self.sources.exists(s, has(s.weight))"
        " || self.sources.exists(s, has(s.weight) && s.weight > 0.0)",
        "sources all have weight 0: %s; give one that is read from the first step a positive one",
        (names("self.sources"),),
    ),
    Rule(
        "chats-have-messages",
        "spec.data",
        f"size({_CHATS_NAMING_A_FIELD}) == 0",
        "sources: %s are chats, which have messages and no textField; leave it out",
        (names(_CHATS_NAMING_A_FIELD),),
    ),
    Rule(
        "tokenizer-has-text",
        "spec",
        "!has(self.tokenizer.train) || self.data.sources.exists(s, s.format != 'chat')",
        "data.sources are all chats (%s), and tokenizer.train needs text; add a source of text, or"
        " set tokenizer.path",
        (names("self.data.sources"),),
    ),
)
