"""`make bench-memory` measures what it says: a shard is written, copied to a peer and loaded."""

from __future__ import annotations

import torch

from hack import memory_rates


def test_each_part_has_a_rate() -> None:
    rates = memory_rates.rates({"weight": torch.randn(1000)}, 4000)
    assert list(rates) == ["written by a worker", "copied to a peer", "loaded"]
    assert all(rate > 0 for rate in rates.values())
