"""A run's pod overrides over the administrator's defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..api.spec import PodTemplate, Resources
from ..settings import Component, Settings
from ..spec_error import SpecError

_NOTHING = PodTemplate()


def merged(settings: Settings, component: Component, own: PodTemplate, field: str) -> PodTemplate:
    """The component's template. Raises SpecError where neither side names an image."""
    template = over(settings.templates.get(component, PodTemplate()), own)
    if template.image is None:
        remedy = f"set it, or templates.{component}.image in the operator's settings"
        raise SpecError("image-known", f"{field}.image", "is not set", remedy)
    return template


def coordinator(settings: Settings, training: PodTemplate) -> PodTemplate:
    """It runs the trainer's image, but on a CPU: only what the image needs comes along."""
    if (default := settings.templates.get("coordinator")) is not None and default.image:
        return default
    return PodTemplate(
        image=training.image,
        image_pull_secrets=training.image_pull_secrets,
        tolerations=training.tolerations,
        env=training.env,
        volumes=training.volumes,
        volume_mounts=training.volume_mounts,
        resources=default.resources if default else Resources(),
        node_selector=default.node_selector if default else {},
    )


def over(default: PodTemplate, own: PodTemplate) -> PodTemplate:
    """Maps are joined, lists are joined by their key, single values are replaced."""
    if own == _NOTHING:  # most are; every pass merges them all
        return default
    return PodTemplate(
        image=own.image or default.image,
        image_pull_secrets=_joined(default.image_pull_secrets, own.image_pull_secrets, str),
        node_selector={**default.node_selector, **own.node_selector},
        tolerations=(*default.tolerations, *own.tolerations),
        env=_joined(default.env, own.env, lambda item: item.name),
        resources=Resources(
            requests={**default.resources.requests, **own.resources.requests},
            limits={**default.resources.limits, **own.resources.limits},
        ),
        volumes=_joined(default.volumes, own.volumes, lambda item: item.get("name")),
        volume_mounts=_joined(
            default.volume_mounts, own.volume_mounts, lambda item: item.get("mountPath")
        ),
        annotations={**default.annotations, **own.annotations},
    )


def _joined(first: Iterable[Any], second: Iterable[Any], key: Callable[[Any], Any]) -> Any:
    """In order; an entry of `second` replaces the one of the same key."""
    replaced = {str(key(item)) for item in second}
    return (*(item for item in first if str(key(item)) not in replaced), *second)
