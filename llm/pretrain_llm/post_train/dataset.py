"""Chat examples from JSON Lines: {"messages": [{"role": …, "content": …}, …]} a line."""

from __future__ import annotations

import json
from pathlib import Path

from ..conversation import Conversation, mistake, turns
from ..errors import InputError


def conversations(path: Path, field: str) -> list[Conversation]:
    """Every conversation of the file. Raises InputError, which names file and line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the dataset: {error}",
            field=field,
            value=path,
            remedy="Name a file of JSON Lines that the pod can read.",
        ) from error
    found = [
        _conversation(line, f"{path}:{number}", field)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise InputError(
            "no example in the dataset",
            field=field,
            value=path,
            remedy='Add lines of {"messages": [{"role": "user", "content": "…"}, …]}.',
        )
    return found


def _conversation(line: str, place: str, field: str) -> Conversation:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise _bad_line(f"not JSON: {error}", place, field) from error
    if problem := mistake(row):
        raise _bad_line(problem, place, field)
    return turns(row)


def _bad_line(problem: str, place: str, field: str) -> InputError:
    return InputError(problem, field=field, value=place, remedy="Mend or remove this line.")
