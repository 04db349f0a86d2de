"""The ConfigMap with run.json, and the digests of what a Job is made from."""

from __future__ import annotations

from functools import lru_cache

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import RunConfig

from .. import names
from ..api.spec import PodTemplate
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


def inputs_digest(config: RunConfig, own: PodTemplate, *more: object) -> str:
    """Of what the run itself says of a Job. A change of it makes the Job anew."""
    template = own.model_dump(mode="json", by_alias=True, exclude_none=True)
    return digest({"config": _rendered(config)[1], "template": template, "more": list(more)})
