"""What all API types share: frozen, camelCase in YAML, every field described, hashable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

_KEPT_HASH = "_kept_hash"


def _yaml_name(name: str) -> str:
    """Kubernetes writes initials in capitals."""
    return to_camel(name).replace("Kv", "KV")


class ApiModel(BaseModel):
    """Unknown fields are dropped, as the API server prunes them."""

    __slots__ = (_KEPT_HASH,)  # copies, which may differ, do not take it along

    model_config = ConfigDict(
        frozen=True, alias_generator=_yaml_name, populate_by_name=True, extra="ignore"
    )

    def __hash__(self) -> int:
        """pydantic's own fails where a field is a map. A default that has no hash is copied, all of
        it, by every validation; one that has is shared.
        """
        known: int | None = getattr(self, _KEPT_HASH, None)
        if known is None:
            known = _hash(tuple(self.__dict__.values()))
            object.__setattr__(self, _KEPT_HASH, known)
        return known


def _hash(value: object) -> int:
    """With types: 1 and true are equal to Python, but not to the API server, and what is kept of
    the one must not be found with the other.
    """
    if isinstance(value, Mapping):
        return hash(frozenset((name, _hash(item)) for name, item in value.items()))
    if isinstance(value, tuple | list):
        return hash(tuple(map(_hash, value)))
    return hash((type(value), value))


Name = Annotated[
    str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
Fraction = Annotated[float, Field(ge=0, le=1)]
MAX_STEPS = 100_000_000
