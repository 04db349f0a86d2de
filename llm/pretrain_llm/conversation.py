"""One chat as a row of a dataset: {"messages": [{"role": …, "content": …}, …]}, and what is wrong
with one. Reads no file.
"""

from __future__ import annotations

from reprlib import repr as short
from typing import Any

ROLES = ("system", "user", "assistant")

Conversation = list[dict[str, str]]


def turns(row: dict[str, Any]) -> Conversation:
    """Of a row without a mistake; whatever else it has is left out."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in row["messages"]]


def mistake(row: Any) -> str | None:
    """What is wrong with one example, in words; None: nothing."""
    given = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(given, list) or not given:
        return f"`messages` is not a list of turns: {short(given)}"
    for number, turn in enumerate(given):
        role = turn.get("role") if isinstance(turn, dict) else turn
        if role not in ROLES or not isinstance(turn, dict):
            return f"messages[{number}].role is none of {', '.join(ROLES)}: {short(role)}"
        if not isinstance(content := turn.get("content"), str):
            return f"messages[{number}].content is not text: {short(content)}"
    if not any(turn["role"] == "assistant" for turn in given):
        return "no assistant turn to learn from"
    return None
