"""The learning rate over the steps, and what changes at later ones."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .base import MAX_STEPS, ApiModel, Fraction, Name


class Schedule(ApiModel):
    warmup_steps: int = Field(0, ge=0, le=MAX_STEPS, description="Linear warm-up.")
    decay: Literal["linear", "cosine", "sqrt"] = Field("cosine", description="Form of the decay.")
    decay_fraction: Fraction = Field(
        1.0, description="Last part of the steps, in which the rate decays; constant before (WSD)."
    )
    min_learning_rate_fraction: Fraction = Field(0.1, description="Of the peak, at the end.")
    steps: int | None = Field(
        None,
        ge=1,
        le=MAX_STEPS,
        description="Of the whole schedule, which may end early (OLMo 2's) and otherwise stays at"
        " its end. Default: those that it spans.",
    )
    weight_decay: Literal["cosine"] | None = Field(
        None, description="cosine: weight decay falls to 0 over the steps. Default: it stays."
    )


class SourceWeight(ApiModel):
    name: Name = Field(description="Of one of data.sources.")
    weight: float = Field(gt=0, le=1e9, description="Relative to the others'.")


class Segment(ApiModel):
    """What is left out stays as it was. See docs/curriculum.md."""

    from_step: int = Field(
        ge=1, le=MAX_STEPS, description="The segment begins once so many steps are finished."
    )
    weights: tuple[SourceWeight, ...] = Field(
        (), max_length=64, description="Of the sources that are read; those not named are not."
    )
    sequence_length: int | None = Field(None, ge=8, le=1_048_576, description="Tokens.")
    global_batch_size: int | None = Field(None, ge=1, le=1_048_576, description="Sequences a step.")
    local_batch_size: int | None = Field(
        None, ge=1, le=65536, description="Sequences a rank takes at once."
    )
    rope_theta: float | None = Field(
        None, gt=0, le=1e12, description="Base of the rotary embedding."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Peak rate. The schedule begins anew; other rates change in proportion.",
    )
    seed: int | None = Field(
        None, ge=0, le=2**31 - 1, description="Of the order of samples, which begins anew."
    )
    schedule: Schedule | None = Field(
        None,
        description="Begins here and spans the steps until the next segment that has a schedule or "
        "a learning rate.",
    )
    reset_optimizer: bool = Field(
        False, description="Begin with a new optimiser: its moments are not carried over."
    )
