"""What a broken rule is told with, and what rules have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class SpecError(ValueError):
    """The user must change the spec: which field, what was found, and what to do."""

    def __init__(self, rule: str, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field} {value}: {remedy}")
        self.rule = rule


def repeated(values: Sequence[T]) -> T | None:
    """The first that stands there more than once."""
    return next((value for value in values if values.count(value) > 1), None)
