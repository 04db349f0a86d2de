"""Chat datasets: a bad line is named with its file and number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pretrain_llm.errors import InputError
from pretrain_llm.post_train.dataset import conversations

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hey"}]}
FIELD = "spec.postTraining[0].datasetPath"


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_conversations_good_lines_keep_turns(tmp_path: Path) -> None:
    path = write(tmp_path / "chat.jsonl", GOOD, "", {**GOOD, "source": "kept out"})
    assert conversations(path, FIELD) == [GOOD["messages"], GOOD["messages"]]


def test_conversations_unusual_line_separator_stays_in_its_line(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a\u2028b"}, {"role": "assistant", "content": "c"}]
    row = json.dumps({"messages": turns}, ensure_ascii=False)
    assert conversations(write(tmp_path / "chat.jsonl", row), FIELD) == [turns]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": [', "not JSON"),
        (["messages"], "`messages` is not a list"),
        ({"prompt": "Hi"}, "`messages` is not a list"),
        ({"messages": []}, "`messages` is not a list"),
        ({"messages": ["Hi"]}, r"messages\[0\].role is none of"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, r"messages\[0\].role is none of"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content is not text"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no assistant turn"),
    ],
)
def test_conversations_bad_line_names_file_and_line(
    line: object, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "chat.jsonl", GOOD, line)
    with pytest.raises(InputError, match=message) as caught:
        conversations(path, FIELD)
    assert (caught.value.field, caught.value.value) == (FIELD, f"{path}:2")


def test_conversations_empty_file_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no example"):
        conversations(write(tmp_path / "chat.jsonl", "\n"), FIELD)


def test_conversations_missing_file_raises(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the dataset"):
        conversations(tmp_path / "chat.jsonl", FIELD)
