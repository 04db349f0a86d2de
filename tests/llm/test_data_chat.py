"""The chat set of a corpus: any text gives examples, and always the same ones."""

from __future__ import annotations

import pytest

from pretrain_llm.data.chat import MAX_EXAMPLES_A_DOCUMENT, chat_examples, first_sentences, heading

PROSE = "An index speeds up a query that reads few rows. It costs time whenever a row is written."
MANUAL = f"Indexes\n=======\n\n{PROSE}\n\n.. code::\n\n   CREATE INDEX;\n"


def pairs(text: str) -> list[tuple[str, str]]:
    return [
        (example["messages"][0]["content"], example["messages"][1]["content"])
        for example in chat_examples(text)
    ]


def test_chat_examples_heading_and_prose_make_a_question() -> None:
    assert pairs(MANUAL)[0] == ("Tell me about Indexes.", PROSE)


def test_chat_examples_prose_is_continued() -> None:
    question, answer = pairs(PROSE)[0]
    assert question.startswith("Continue: An index")
    assert f"{question.removeprefix('Continue: ')} {answer}" == PROSE


@pytest.mark.parametrize(
    "text",
    ["for (i = 0; i < n; i++) { total += row[i]; }", "今日 は とても 良い 天気 です", "a b c d"],
)
def test_chat_examples_neither_heading_nor_prose_still_gives_one(text: str) -> None:
    ((question, answer),) = pairs(text)
    assert f"{question.removeprefix('Continue: ')} {answer}" == text


@pytest.mark.parametrize("text", ["", "   \n", "one two three"])
def test_chat_examples_too_short_gives_none(text: str) -> None:
    assert chat_examples(text) == []


def test_chat_examples_long_document_is_bounded() -> None:
    assert len(chat_examples(MANUAL * 50)) == MAX_EXAMPLES_A_DOCUMENT


@pytest.mark.parametrize(
    ("block", "title"),
    [
        ("Indexes\n=======", "Indexes"),
        ("=======\nIndexes\n=======", "Indexes"),
        ("38.2.1. Base Types", "Base Types"),
        ("The ``os`` module", "The os module"),
        ("This is a whole sentence, and it ends.", None),
        (".. code::", None),
        ("two\nlines", None),
        ("x" * 61, None),
        ("-----", None),
        ("1 + 2", None),
    ],
)
def test_heading_block_is_told_from_text(block: str, title: str | None) -> None:
    assert heading(block) == title


def test_first_sentences_long_text_ends_at_a_sentence() -> None:
    text = " ".join(f"Sentence number {n} has a few words in it." for n in range(20))
    short = first_sentences(text)
    assert len(short) <= 300
    assert short.endswith("it.")
