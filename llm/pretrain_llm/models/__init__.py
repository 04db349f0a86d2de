"""The architectures that can be trained: one module each, named as in the spec.

A module turns the spec's shapes into a torchtitan ModelSpec, and into a Hugging Face config and
back. Importing this package imports no torch, so that a wrong name is found in milliseconds.

    model_spec(model, sequence_length) -> torchtitan ModelSpec
    hf_config(model, sequence_length)  -> content of config.json
    model_of(hf_config)                -> the shapes again
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ..contract.config import ARCHITECTURES
from ..errors import InputError


def architecture(name: str) -> ModuleType:
    """The module of one architecture. Raises InputError."""
    if name not in ARCHITECTURES:
        raise InputError(
            "unknown architecture",
            field="spec.model.architecture",
            value=name,
            remedy=f"Use one of: {', '.join(ARCHITECTURES)}.",
        )
    return importlib.import_module(f".{name}", __name__)
