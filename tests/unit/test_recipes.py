"""The recipes: legal, exact, affordable, documented, and each with a record of its dry run."""

from __future__ import annotations

import pytest
import yaml

from hack.recipes import book, record, table
from hack.recipes.tiny import STEPS, tiny
from pretrain_operator.planner.memory import accumulation
from pretrain_operator.planner.plan import plan_run
from pretrain_operator.planner.recipe import recipe

# Published, or of the published shape.
PARAMETERS = {
    "nanochat-d12": 286_261_730,
    "nanochat-d24-speedrun": 1_384_122_122,
    "nanochat-d20-2025": 560_988_160,
    "nanochat-d26-300usd": 1_081_999_360,
    "nanochat-d30-24h": 1_578_762_240,
    "nanochat-d32-1000usd": 1_879_048_192,
    "nanollama-nano": 45_819_264,
    "nanollama-micro": 87_310_848,
    "nanollama-mini": 175_012_608,
    "nanollama-small": 336_118_784,
    "nanollama-goldie": 1_188_653_056,
    "nanollama-medium": 1_705_117_696,
    "nanollama-large": 4_100_680_704,
    "nanollama-big": 7_520_702_464,
    "tinyllama-1.1b-3t": 1_100_048_384,
    "tinyllama-1.1b-22b": 1_100_048_384,
    "microllama-300m-50b": 304_636_928,
    "pythia-14m": 14_067_712,
    "pythia-31m": 30_494_720,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "olmo2-1b": 1_484_916_736,
    "olmo2-7b": 7_298_617_344,
    "olmo2-13b": 13_716_198_400,
    "olmo2-32b": 32_234_279_936,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "smollm3-3b": 3_075_098_624,
    "edge-150m-30b": 153_720_960,
    "gpt2class-700m-40b": 694_500_864,
    "llama-1b-50b": 1_040_254_976,
    "llama-3b-60b": 3_212_749_824,
    "llama-7b-140b": 6_738_415_616,
    "llama3-8b-15t": 8_030_261_248,
    "lfm-350m-28t": 377_549_760,
    "scale23x-gpt-1.3b": 1_315_276_800,
    "hyperpod-1.15b": 1_154_025_472,
    "llama3-70b-ref": 70_553_706_496,
    "llama3.1-405b-ref": 405_853_388_800,
}

# Steps, and device-hours of the published time: 8 devices for 1.23 and 17.35 minutes.
SCRIPTS = {
    "modded-nanogpt-124m": (1285, 8 * 1.23 / 60),
    "modded-nanogpt-350m": (4740, 8 * 17.35 / 60),
}


@pytest.fixture(scope="module")
def entries() -> dict[str, book.Entry]:
    return {item.name: item for item in book.entries()}


def test_recipes_are_the_published_ones(entries: dict[str, book.Entry]) -> None:
    assert set(entries) == set(PARAMETERS)
    assert set(book.script_names()) == set(SCRIPTS)


@pytest.mark.parametrize(("name", "published"), SCRIPTS.items())
def test_script_recipe_costs_what_was_published(name: str, published: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match=f"{name} runs a script"):
        book.entry(name)
    item = book.script_entry(name)
    assert item.body["metadata"]["name"] == name
    assert item.plan.config.script.steps == published[0]
    assert item.plan.cost
    assert item.plan.cost.device_hours == pytest.approx(published[1], rel=1e-3)


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipe_parameters_are_exact(name: str, entries: dict[str, book.Entry]) -> None:
    assert entries[name].plan.parameters.total == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipe_fits_its_devices(name: str, entries: dict[str, book.Entry]) -> None:
    plan = entries[name].plan
    assert plan.problems == ()
    assert plan.dollars is not None


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipe_name_is_the_files(name: str, entries: dict[str, book.Entry]) -> None:
    assert entries[name].body["metadata"]["name"] == name.replace(".", "-")


def test_recipes_table_is_fresh(entries: dict[str, book.Entry]) -> None:
    every = [*entries.values(), *book.script_entries()]
    assert (book.FOLDER / "README.md").read_text() == table.readme(every)


def test_dry_run_record_has_every_recipe_as_it_is() -> None:
    assert record.missing(record.read()) == []
    assert set(record.read()["recipes"]) == set(book.names()), "of scripts there is no dry run"


@pytest.mark.parametrize("name", PARAMETERS)
def test_dry_run_record_agrees_with_the_plan(name: str, entries: dict[str, book.Entry]) -> None:
    row, run = record.read()["recipes"][name], entries[name].plan.config
    first, *later = record.shapes(run)
    parts = row.get("later", [])
    assert [part["fromStep"] for part in parts] == [segment.start for segment in later]
    for segment, part in zip((first, *later), (row, *parts), strict=True):
        passes = accumulation(segment.run)
        if run.parallelism.pipeline_parallel > 1:
            passes *= segment.run.training.local_batch_size
        ranks = part["ranks"]
        assert {rank["worldSize"] for rank in ranks} == {
            run.nodes.count * run.nodes.devices_per_node
        }
        assert {rank["microbatches"] for rank in ranks} == {passes}
        if run.parallelism.pipeline_parallel == 1:
            assert ranks[0]["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_tiny_form_is_a_legal_run_of_the_same_family(
    name: str, entries: dict[str, book.Entry]
) -> None:
    body = entries[name].body
    spec = recipe(yaml.safe_dump(tiny(body))).spec
    plan = plan_run(spec)
    assert plan.parameters.total < 1_000_000
    assert spec.training.steps == STEPS
    assert spec.model.architecture == body["spec"]["model"]["architecture"]
    assert spec.training.optimizer.name == body["spec"]["training"]["optimizer"]["name"]
