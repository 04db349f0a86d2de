"""What all API types share: frozen, camelCase in YAML, every field described."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


def _yaml_name(name: str) -> str:
    """Kubernetes writes initials in capitals."""
    return to_camel(name).replace("Kv", "KV")


class ApiModel(BaseModel):
    """Unknown fields are dropped, as the API server prunes them."""

    model_config = ConfigDict(
        frozen=True, alias_generator=_yaml_name, populate_by_name=True, extra="ignore"
    )
