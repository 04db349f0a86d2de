"""What the operator's administrator sets, from the chart's values: images, defaults a stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .api.base import ApiModel
from .api.spec import PodTemplate

Component = Literal["coordinator", "data", "training", "export", "postTraining", "serving"]


class Settings(ApiModel):
    """Frozen; read once at start. The file is YAML in the form of this class."""

    templates: dict[Component, PodTemplate] = Field(
        {}, description="Defaults of each component's pods; a run's own template goes over them."
    )
    serving_arguments: tuple[str, ...] = Field((), description="Put before a run's own arguments.")
    status_interval_seconds: float = Field(
        10.0, gt=0, description="Longest time that progress waits to be written to the status."
    )
    poll_interval_seconds: float = Field(
        2.0, gt=0, description="Between two looks at a coordinator. Not an API call."
    )
    unreachable_seconds: int = Field(
        5, ge=0, description="A pod on a node that does not answer is replaced after this time."
    )
    termination_grace_seconds: int = Field(
        120, ge=1, description="Time for a last checkpoint when a training pod must go."
    )
    cluster_domain: str = Field("cluster.local", description="DNS domain of Services.")
