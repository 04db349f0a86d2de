"""Ratios and tables of `make bench-throughput` and `make bench-gpu`, from figures made up here."""

from __future__ import annotations

from typing import Any

import pytest

from hack.throughput import report
from hack.throughput.measure import Estimate, LoaderShare, Memory, StepCost, mfu, throughput


def test_ratio_is_the_mean_of_starts_and_a_start_is_the_median_of_its_pairs() -> None:
    """The machine gets four times as slow meanwhile, and both with it."""
    first = [(1.0, 1.1), (2.0, 2.2), (4.0, 4.4), (4.0, 3.0), (4.0, 5.0)]
    found = throughput([first, [(1.0, 0.9)]], block_tokens=100)
    assert found.ratio.mean == pytest.approx(1.0)
    assert found.ratio.standard_error == pytest.approx(0.1)
    assert (found.starts, found.pairs) == (2, 6)
    assert found.ours_tokens_per_second == pytest.approx(100 / 3)
    assert found.bare_tokens_per_second == pytest.approx(100 / 2.6)


def test_cost_is_of_a_step_and_not_of_a_block() -> None:
    starts = [[(2.02, 2.0), (2.04, 2.0), (9.0, 2.0)], [(2.02, 2.0)]]
    found = throughput(starts, block_tokens=100, block_steps=2).cost_seconds
    assert (found.mean, found.standard_error) == pytest.approx((0.015, 0.005))


@pytest.mark.parametrize(("step_seconds", "is_met"), [(0.5, True), (0.1, False)])
def test_cost_of_a_step_counts_for_less_in_a_longer_one(step_seconds: float, is_met: bool) -> None:
    cost = StepCost("llama", Estimate(0.001, 0.0002), step_seconds)
    assert cost.ratio.mean == pytest.approx(step_seconds / (step_seconds + 0.001))
    assert cost.ratio.standard_error == pytest.approx(0.0002 / step_seconds, rel=0.02)
    assert cost.meets_target is is_met


@pytest.mark.parametrize(("bare_seconds", "is_met"), [(0.9951, True), (0.9949, False)])
def test_target_is_five_in_a_thousand(bare_seconds: float, is_met: bool) -> None:
    assert throughput([[(1.0, bare_seconds)]] * 2, 1).meets_target is is_met


def test_one_start_has_no_spread() -> None:
    with pytest.raises(ValueError, match="there were 1"):
        throughput([[(1.0, 1.0)]], 1)


def test_mfu_is_of_what_torchtitan_counts() -> None:
    assert mfu(1000, 6e9, 12e12) == 0.5


@pytest.mark.parametrize(
    ("peak_bytes", "is_met"), [(1.09, True), (1.11, False), (0.91, True), (0.89, False)]
)
def test_memory_may_be_a_tenth_beside_the_plan(peak_bytes: float, is_met: bool) -> None:
    assert Memory(peak_bytes, 1.0).meets_target is is_met


@pytest.mark.parametrize(("wait_seconds", "is_met"), [(0.99e-3, True), (1e-3, False)])
def test_loader_may_take_a_thousandth_of_a_step(wait_seconds: float, is_met: bool) -> None:
    share = LoaderShare("llama", 1024, 1.0, 0.01, wait_seconds)
    assert share.meets_target is is_met


ROW: dict[str, Any] = {
    "case": "llama",
    "starts": 4,
    "pairs": 12,
    "ours_tokens_per_second": 1234.5,
    "bare_tokens_per_second": 1230.0,
    "ratio": {"mean": 1.0037, "standard_error": 0.002},
    "cost_seconds": {"mean": 0.0011, "standard_error": 0.0002},
    "saveStallSeconds": {"async": 0.1, "sync": 1.5},
    "meetsTarget": True,
}
CONTROL = {**ROW, "case": "bare twice", "saveStallSeconds": None}
COST = {
    "case": "llama",
    "cost_seconds": ROW["cost_seconds"],
    "step_seconds": 0.5,
    "ratio": {"mean": 0.9978, "standard_error": 0.0004},
}


def test_cpu_table_has_both_targets() -> None:
    too_long = {**COST, "case": "slow", "ratio": {"mean": 0.9949, "standard_error": 0.0004}}
    shares = {
        "recipe": "nano",
        "rank_tokens": 65536,
        "step_seconds": 0.05,
        "read_seconds": 0.002,
        "wait_seconds": 40e-6,
        "share": 8e-4,
    }
    found = {"throughput": [ROW, CONTROL], "costs": [COST, too_long], "loader": [shares]}
    table = report.cpu_table({"environment": {"torch": "2.15.0"}, **found})
    figures = "4 | 12 | 1,234 | 1,230 | 1.0037 ± 0.0020 | 1.10 ± 0.20 ms"
    assert f"| llama | {figures} | 0.10 s | 1.50 s |" in table
    assert f"| bare twice | {figures} | – | – |" in table
    assert "| llama | 1.10 ± 0.20 ms | 0.50 s | 0.9978 ± 0.0004 | met |" in table
    assert "| slow | 1.10 ± 0.20 ms | 0.50 s | 0.9949 ± 0.0004 | **not met** |" in table
    assert "| nano | 65,536 | 0.05 s | 2.00 ms | 40 µs | 0.0800% | met |" in table


def test_gpu_table_has_memory_against_the_plan() -> None:
    row = {
        **ROW,
        "mfu": 0.41,
        "published": 598_000,
        "memory": {"peak_bytes": 2.2 * 2**30, "planned_bytes": 2.0 * 2**30},
    }
    table = report.gpu_table({"environment": {}, "throughput": [row]})
    assert "| 598,000 | 41.0% | 2.2 GiB | +10.0% | 0.10 s | 1.50 s | met |" in table


def test_page_gets_the_commands_table_and_keeps_the_rest() -> None:
    page = "a\n<!-- begin: make x -->\nold\n<!-- end: make x -->\nb\n"
    assert report.page(page, "make x", "new").splitlines()[2] == "new"
    assert report.page(page, "make x", "new").endswith("-->\nb\n")
    with pytest.raises(ValueError, match="the page has no"):
        report.page(page, "make y", "new")
