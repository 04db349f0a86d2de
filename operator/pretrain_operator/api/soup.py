"""Checkpoints whose mean is exported."""

from __future__ import annotations

from pydantic import Field

from .base import MAX_STEPS, ApiModel, Name


class Ingredient(ApiModel):
    run: Name | None = Field(None, description="On the same volume. Default: this one.")
    step: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Of a checkpoint. Default: the newest."
    )
    weight: float = Field(1.0, gt=0, le=1e9, description="Relative to the others'.")


class Soup(ApiModel):
    ingredients: tuple[Ingredient, ...] = Field(
        min_length=2, max_length=16, description="Checkpoints of one architecture and tokenizer."
    )
