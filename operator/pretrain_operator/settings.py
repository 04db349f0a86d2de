"""What the operator's administrator sets, from the chart's values: images, defaults a stage."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .api.base import ApiModel
from .api.spec import PodTemplate

Component = Literal["coordinator", "data", "training", "export", "postTraining", "serving"]


class NodeExclusion(ApiModel):
    """How nodes that faults blame are kept from runs, and for how long."""

    marks: Literal["None", "Label", "Taint"] = Field(
        "None",
        description=(
            "What is written to such a Node: nothing (a run leaves it with a new attempt), labels"
            " (its pod alone is replaced), or labels and, once all runs avoid it, a taint."
        ),
    )
    seconds: int = Field(86_400, ge=60, description="Faults count, and exclusions last, so long.")
    faults_of_all_runs: int = Field(
        5, ge=0, description="Faults of one node after which all runs avoid it; 0: never."
    )


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
        5,
        ge=0,
        description="A pod on a node that does not answer is replaced after this time; one of the"
        " training only if it is silent itself.",
    )
    termination_grace_seconds: int = Field(
        120, ge=1, description="Time for a last checkpoint when a training pod must go."
    )
    node_exclusion: NodeExclusion = Field(
        NodeExclusion(), description="Nodes that faults blame again and again."
    )
    cluster_domain: str = Field("cluster.local", description="DNS domain of Services.")
