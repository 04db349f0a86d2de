"""The ConfigMap with run.json, and the digests of what a Job is made from."""

from __future__ import annotations

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig, digest

from .. import names
from ..api.spec import PodTemplate
from ..observed import Run
from .metadata import Object, child, stamped

CONFIG_KEY = "run.json"


def config_map_name(run: Run, config: RunConfig) -> str:
    return names.config_map(run.name, digest(config))


def config_map(run: Run, config: RunConfig) -> Object:
    return stamped(
        child(
            run,
            "v1",
            "ConfigMap",
            config_map_name(run, config),
            "config",
            immutable=True,
            data={CONFIG_KEY: codec.to_json(config)},
        )
    )


def inputs_digest(config: RunConfig, own: PodTemplate, *more: object) -> str:
    """Of what the run itself says of a Job. A change of it makes the Job anew."""
    template = own.model_dump(mode="json", by_alias=True, exclude_none=True)
    return digest({"config": digest(config), "template": template, "more": list(more)})[:16]
