"""A small chat set made from the corpus itself, for post-training that names no dataset.

It teaches the form of a chat (a turn, an answer, its end), not knowledge. Deterministic.

    a heading and the prose below it      "Tell me about <heading>."   the first sentences
    other prose                           "Continue: <first half>"     the second half
    a text with neither                   "Continue: <first half>"     by words, from its start
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, pairwise

from .sources import SourceFile, in_turn, text_hash

Example = dict[str, list[dict[str, str]]]  # {"messages": [{"role": …, "content": …}, …]}

MAX_EXAMPLES = 4000
MAX_EXAMPLES_A_DOCUMENT = 4
MAX_ANSWER_CHARACTERS = 300
MIN_PROSE_CHARACTERS = 80
MAX_HEADING_CHARACTERS = 60

_PROSE = re.compile(r"[A-Z“\"'(].*[.!?]", re.DOTALL)
_UNDERLINE = re.compile(r"([^\w\s])\1{2,}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def chat_set(files: list[SourceFile], *, heldout_limit: int) -> list[Example]:
    """Up to MAX_EXAMPLES from all sources in turn; held-out documents give none."""
    texts = (text for text in in_turn(files) if text_hash(text) > heldout_limit)
    return list(
        islice((example for text in texts for example in chat_examples(text)), MAX_EXAMPLES)
    )


def chat_examples(text: str) -> list[Example]:
    """Up to MAX_EXAMPLES_A_DOCUMENT examples; none where a text has fewer than four words."""
    blocks = [block for block in re.split(r"\n\s*\n", text) if block.strip()]
    examples = [*_about(blocks), *_continuations(blocks)][:MAX_EXAMPLES_A_DOCUMENT]
    return examples or _halves(" ".join(text.split()[:60]))


def _about(blocks: list[str]) -> Iterator[Example]:
    for above, below in pairwise(blocks):
        title, prose = heading(above), " ".join(below.split())
        if title and is_prose(prose):
            yield _example(f"Tell me about {title}.", first_sentences(prose))


def _continuations(blocks: list[str]) -> Iterator[Example]:
    for block in blocks:
        prose = " ".join(block.split())
        if is_prose(prose):
            yield from _halves(first_sentences(prose))


def heading(block: str) -> str | None:
    """The title that a block of text is, with or without a line drawn around it; None: no title."""
    lines = [line.strip() for line in block.strip().splitlines()]
    words = [line for line in lines if not _UNDERLINE.fullmatch(line)]
    if len(words) != 1 or len(words[0]) > MAX_HEADING_CHARACTERS:
        return None
    title = re.sub(r"^[\dA-Z]{0,2}[\d.]*\.\s+", "", words[0]).replace("`", "")
    plain = re.fullmatch(r"\w[\w\s,'()\"/+&-]*", title)
    return title if plain and re.search(r"[^\W\d_]{3}", title) else None


def is_prose(text: str) -> bool:
    return len(text) >= MIN_PROSE_CHARACTERS and _PROSE.fullmatch(text) is not None


def first_sentences(text: str) -> str:
    """Whole sentences up to MAX_ANSWER_CHARACTERS, at least one."""
    first, *others = _SENTENCE_END.split(text)
    for sentence in others:
        if len(first) + len(sentence) >= MAX_ANSWER_CHARACTERS:
            break
        first = f"{first} {sentence}"
    return first


def _halves(text: str) -> list[Example]:
    words = text.split()
    if len(words) < 4:
        return []
    middle = len(words) // 2
    return [_example(f"Continue: {' '.join(words[:middle])}", " ".join(words[middle:]))]


def _example(question: str, answer: str) -> Example:
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": content} for role, content in turns]}
