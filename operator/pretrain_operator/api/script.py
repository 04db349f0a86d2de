"""A program of the user's in the place of torchtitan. docs/script-engine.md has its contract."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import MAX_STEPS, ApiModel

Word = Annotated[str, Field(max_length=4096)]


class Script(ApiModel):
    """Started as every worker, with torchrun's environment variables. Its image is
    nodes.template.image, its variables are nodes.template.env.
    """

    command: tuple[Word, ...] = Field(
        min_length=1, max_length=256, description="Program and arguments; no shell is around it."
    )
    working_directory: str | None = Field(
        None, min_length=1, max_length=1024, description="Default: the image's."
    )
    steps: int = Field(ge=1, le=MAX_STEPS, description="That it makes in all, as it reports them.")
