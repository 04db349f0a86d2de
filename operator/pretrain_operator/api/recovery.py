"""How many faults a run bears, and when it counts as one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import ApiModel


class Stall(ApiModel):
    """When a round that makes no step is broken. Holds from the next attempt on."""

    factor: float = Field(
        10.0, ge=2, le=1000, description="A step may take this many times the median step."
    )
    floor_seconds: int = Field(8, ge=1, le=86_400, description="It may always take this long.")
    quiet_seconds: int = Field(
        1800,
        ge=10,
        le=86_400,
        description="Limit where no steps are expected: workers start, save, or close at the end.",
    )


class LossRecovery(ApiModel):
    """What a loss or gradient that is not finite, or a spike of the loss, leads to: the run goes
    back to before it and skips the batches. Holds from the next attempt on.
    """

    spike_factor: float | None = Field(
        None,
        ge=2,
        le=1000,
        description="Spikes are looked for where it is set, for example to 7: a loss above median +"
        " factor x 1.4826 x MAD of the window before it.",
    )
    window_steps: int = Field(100, ge=4, le=10_000, description="Steps that a spike stands out of.")
    spike_steps: int = Field(
        10, ge=1, le=1000, description="A spike lasts so many steps; shorter ones pass."
    )
    skip_steps: int = Field(
        100,
        ge=1,
        le=100_000,
        description="Batches skipped: those up to the step that showed it, from the step where it"
        " began on at least, but none that an earlier checkpoint has trained.",
    )
    max_rollbacks: int = Field(3, ge=0, le=100, description="Of the whole run; then it stops.")


class Stragglers(ApiModel):
    """Ranks that compute slower than the others. Not measured where training.compile is set.
    zScore and windowSteps hold from the next attempt on.
    """

    z_score: float = Field(
        4.0,
        ge=2,
        le=100,
        description="Robust sigmas (1.4826 x MAD, at least 5 %) above the ranks' median.",
    )
    window_steps: int = Field(50, ge=20, le=10_000, description="Steps of a rank's median.")
    action: Literal["Report", "Replace"] = Field(
        "Report",
        description="Replace: the run leaves the slowest rank's node, as one that faults blame.",
    )


class Recovery(ApiModel):
    """Faults in a row that are borne. Progress past the last fault resets the counts."""

    max_infrastructure_faults: int = Field(
        20, ge=0, le=100_000, description="Lost nodes, pods, devices, without progress between."
    )
    max_application_faults: int = Field(
        3, ge=0, le=100_000, description="Errors of the program itself, without progress between."
    )
    exclude_node_after: int = Field(
        3,
        ge=0,
        le=1000,
        description=(
            "Faults of one node after which the run leaves it for a time; broken hardware counts"
            " at once. 0: it never does."
        ),
    )
    shrink_after_seconds: int = Field(
        120,
        ge=0,
        le=86_400,
        description="Wait for missing nodes, from when the last has come, before the run goes on"
        " with fewer (nodes.min). Holds from the next attempt on.",
    )
    stall: Stall = Field(Stall(), description="Hangs: no step comes, and nothing has ended.")
    stragglers: Stragglers = Field(Stragglers(), description="Ranks slower than the others.")
    loss: LossRecovery = Field(LossRecovery(), description="A loss that goes wrong.")
    fault_injection: bool = Field(
        False,
        description="Whether `pretrain faults inject` may break this run. A change of it is a new"
        " attempt, which saves first.",
    )
