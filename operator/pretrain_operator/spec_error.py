"""What a broken rule is told with."""

from __future__ import annotations


class SpecError(ValueError):
    """The user must change the spec: which field, what was found, and what to do."""

    def __init__(self, rule: str, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field} {value}: {remedy}")
        self.rule = rule
