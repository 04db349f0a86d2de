"""What all API types share: frozen, camelCase in YAML, every field described."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

# Kubernetes writes these initials in capitals.
_INITIALS = {"numKvHeads": "numKVHeads", "podIp": "podIP", "claimUid": "claimUID"}


def _yaml_name(name: str) -> str:
    camel = to_camel(name)
    return _INITIALS.get(camel, camel)


class ApiModel(BaseModel):
    """Unknown fields are dropped, as the API server prunes them."""

    model_config = ConfigDict(
        frozen=True, alias_generator=_yaml_name, populate_by_name=True, extra="ignore"
    )
