"""The ConfigMap with run.json, and the digests of what a Job is made from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from pydantic.main import IncEx

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig

from .. import names
from ..api.spec import PodTemplate, RunSpec
from ..observed import Run
from .metadata import Object, child, digest, stamped

CONFIG_KEY = "run.json"


@lru_cache(maxsize=4096)  # it is the same in every pass of a run
def _rendered(config: RunConfig) -> tuple[str, str]:
    """run.json and its digest."""
    text = codec.to_json(config)
    return text, digest(text)


def config_map_name(run: Run, config: RunConfig) -> str:
    return names.config_map(run.name, _rendered(config)[1])


def config_map(run: Run, config: RunConfig) -> Object:
    return stamped(
        child(
            run,
            "v1",
            "ConfigMap",
            config_map_name(run, config),
            "config",
            immutable=True,
            data={CONFIG_KEY: _rendered(config)[0]},
        )
    )


# Not part of what data, training and export are made from.
_OWN_OR_LATER: Mapping[str, IncEx | bool] = {
    "suspend": True,
    "recovery": True,
    "post_training": True,
    "serving": True,
    "storage": {"create"},
    "data": {"template"},
    "nodes": {"template"},
    "export": {"template"},
}


def inputs_digest(spec: RunSpec, own: PodTemplate, retries: int, *more: object) -> str:
    """Of what the run itself says of a Job: a change of it makes the Job anew.

    Defaults are left out: a field that a newer operator knows, and nobody has set, is no change.
    """
    common = spec.model_dump(mode="json", exclude_defaults=True, exclude=_OWN_OR_LATER)
    template = own.model_dump(mode="json", exclude_defaults=True)
    parts = {"spec": common, "template": template, "retries": retries, "more": list(more)}
    return digest(parts)
