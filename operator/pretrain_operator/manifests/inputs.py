"""The ConfigMap with run.json, and the digests of what a Job is made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from pydantic.main import IncEx

from pretrain_llm.contract import codec
from pretrain_llm.contract.config import AnyConfig

from .. import names
from ..api.spec import AnySpec, PodTemplate
from ..observed import Run
from .metadata import Object, child, digest, stamped

CONFIG_KEY = "run.json"


@lru_cache(maxsize=4096)  # it is the same in every pass of a run
def _rendered(config: AnyConfig) -> tuple[str, str]:
    """run.json and its digest."""
    text = codec.to_json(config)
    return text, digest(text)


def config_map_name(run: Run, config: AnyConfig) -> str:
    return names.config_map(run.name, _rendered(config)[1])


def config_map(run: Run, config: AnyConfig) -> Object:
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


# Not part of what any Job is made from, but for its own template.
_OWN_OR_LATER: Mapping[str, IncEx | bool] = {
    "suspend": True,
    "recovery": True,
    "post_training": True,
    "serving": True,
    "storage": {"create"},
    "data": {"template"},
    "nodes": {"template"},
    "export": {"template", "soup"},
}
# How training runs: nothing to the other stages, which may have run for hours.
_TRAINING_ONLY: Mapping[str, IncEx | bool] = {
    **_OWN_OR_LATER,
    "nodes": {"template", "count", "min", "spares", "devices_per_node"},
    "parallelism": True,
    "checkpoint": True,
    "training": {"local_batch_size", "activation_checkpointing", "compile", "wandb"},
}


def training_digest(spec: AnySpec, retries: int) -> str:
    """Of what the run itself says of training: another one is another attempt."""
    more = '["faultInjection"]' if spec.recovery.fault_injection else "[]"
    return _digest(spec, False, spec.nodes.template, retries, more)


def stage_digest(spec: AnySpec, own: PodTemplate, retries: int, *more: object) -> str:
    """Of what the run itself says of another stage: a change of it makes the Job anew."""
    return _digest(spec, True, own, retries, json.dumps(more))


@lru_cache(maxsize=4096)
def _digest(spec: AnySpec, of_other_stage: bool, own: PodTemplate, retries: int, more: str) -> str:
    """Defaults are left out: a field that a newer operator knows, and nobody has set, is no
    change. `more`: a JSON array.
    """
    excluded = _TRAINING_ONLY if of_other_stage else _OWN_OR_LATER
    common = spec.model_dump(mode="json", exclude_defaults=True, exclude=excluded)
    template = own.model_dump(mode="json", exclude_defaults=True)
    parts = {"spec": common, "template": template, "retries": retries, "more": json.loads(more)}
    return digest(parts)
