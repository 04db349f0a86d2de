"""The architectures that can be planned: one file each, one row in FAMILIES.

Everything else of the planner is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import gpt2, gpt_neox, llama, nanochat, nanochat_2026, olmo2
from .family import Family, Microbatch, Weight, Weights

__all__ = ["FAMILIES", "Family", "Microbatch", "Weight", "Weights", "family"]

FAMILIES: Mapping[str, Family] = {
    "llama": llama.FAMILY,
    "olmo2": olmo2.FAMILY,
    "gpt_neox": gpt_neox.FAMILY,
    "smollm3": llama.FAMILY,  # planned as if all blocks had the table of rotations that 3 in 4 have
    "gpt2": gpt2.FAMILY,
    "nanochat": nanochat.FAMILY,
    "nanochat_2026": nanochat_2026.FAMILY,
}


def family(architecture: str) -> Family:
    """The API admits only architectures that are here; a test holds the lists together."""
    return FAMILIES[architecture]
