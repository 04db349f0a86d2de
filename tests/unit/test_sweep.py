"""A grid from one recipe: its names, its paths, what is refused before anything is applied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain_operator.api.rules import NAME_PATTERN
from pretrain_operator.cli import main
from pretrain_operator.names import SWEEP_LABEL, SWEEP_VALUES_ANNOTATION
from pretrain_operator.planner import RecipeError
from pretrain_operator.planner.sweep import (
    Axis,
    Result,
    SweepError,
    axis,
    best_first,
    child_name,
    children,
    titles,
)

from .runs import demo_body, script_body

RECIPE = Path(__file__).parents[2] / "recipes/scale23x-gpt-1.3b.yaml"
RATE = "training.optimizer.learningRate"
GRID = [
    f"{RATE}=3e-4,6e-4",
    "training.globalBatchSize=128,256",
    "training.optimizer.weightDecay=0.1,0.01",
]


def made(*axes: str, text: str | None = None, name: str | None = None) -> Any:
    written = yaml.safe_dump(demo_body()) if text is None else text
    return children(written, [axis(each) for each in axes], name)


def test_grid_of_the_seed_is_eight_runs_with_each_value() -> None:
    found = made(*GRID, text=RECIPE.read_text())
    assert len({child.name for child in found}) == 8
    assert all(NAME_PATTERN.fullmatch(child.name) for child in found)
    first, *_, last = found
    assert list(first.values.values()) == [3e-4, 128, 0.1]
    training = last.body["spec"]["training"]
    assert (training["optimizer"]["learningRate"], training["globalBatchSize"]) == (6e-4, 256)
    metadata = last.body["metadata"]
    assert metadata["labels"] == {SWEEP_LABEL: "scale23x-gpt-1-3b"}
    assert json.loads(metadata["annotations"][SWEEP_VALUES_ANNOTATION]) == last.values
    assert metadata["namespace"] == "llm"


def test_name_depends_on_the_values_alone() -> None:
    alone = made(f"{RATE}=0.004")
    grown = made(f"spec.{RATE}=0.001,4e-3")
    assert alone[0].name == grown[1].name
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert child_name("run", one) == child_name("run", other) != child_name("run", {"a": 2, "b": 1})


@pytest.mark.parametrize("sweep", ["a", "a" * 40, f"{'a' * 30}-b", "scale23x-gpt-1-3b"])
def test_name_is_legal_for_every_legal_sweep(sweep: str) -> None:
    assert NAME_PATTERN.fullmatch(child_name(sweep, {"training.seed": 1}))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("training.seed=1,2", (1, 2)),
        ("training.optimizer.learningRate=3e-4,0.1", (3e-4, 0.1)),
        ("training.optimizer.name=AdamW,Muon", ("AdamW", "Muon")),
        ("training.compile=true,false", (True, False)),
        ("checkpoint.interval=auto,50", ("auto", 50)),
        ('parallelism={"dataParallelShard": 1}, {}', ({"dataParallelShard": 1}, {})),
        ("training.localBatchSize=null,4", (None, 4)),
    ],
)
def test_axis_reads_json_and_text(text: str, values: tuple[Any, ...]) -> None:
    assert axis(text) == Axis(text.partition("=")[0], values)


def test_path_leads_into_lists_of_the_recipe() -> None:
    found = made("data.sources[1].path=a.jsonl", "postTraining[0].steps=1,2")
    sources, stages = (found[1].body["spec"][part] for part in ("data", "postTraining"))
    assert sources["sources"][1]["path"] == "a.jsonl"
    assert sources["sources"][0] == demo_body()["spec"]["data"]["sources"][0]
    assert stages[0]["steps"] == 2


def test_path_that_the_recipe_leaves_out_is_made() -> None:
    (found,) = made("recovery.stall.floorSeconds=9")
    assert found.body["spec"]["recovery"] == {"stall": {"floorSeconds": 9}}
    (found,) = made("nodes.template.nodeSelector.pool=h100")
    assert found.body["spec"]["nodes"]["template"]["nodeSelector"] == {"pool": "h100"}


def test_sweep_of_a_script_is_checked_by_its_own_rules() -> None:
    text = yaml.safe_dump(script_body())
    (found,) = made('script.command=["python","train.py","--lr","1"]', text=text, name="mine")
    assert found.name.startswith("mine-")
    with pytest.raises(SweepError, match=r"checkpoint.memory"):
        made('checkpoint.memory={"interval": 5}', text=text)


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((), ("nothing varies", "--set")),
        (("training.seed",), ("training.seed", "path=value")),
        (("training.seed=",), ("path=value",)),
        (("training.seed=1,1",), ("twice",)),
        (("training.seed=1", "training.seed=2"), ("training.seed is given twice",)),
        (
            ("training.optimizer.learningrate=1",),
            ("did you mean training.optimizer.learningRate?",),
        ),
        (("training.lr=1",), ("training.lr: no such field",)),
        (("optimizer.learningRate=1",), ("did you mean training.optimizer.learningRate?",)),
        (("training.seed.x=1",), ("no such field",)),
        (("training..seed=1",), ("did you mean training.seed?",)),
        (("data.sources.path=a",), ("did you mean data.sources[0].path?",)),
        (("data.sources[7].path=a",), ("entry [7]", "2 in the recipe")),
        (("training.curriculum[0].fromStep=3",), ("entry [0]", "0 in the recipe")),
        (("training.globalBatchSize=16,15",), ("globalBatchSize=15", "multiple")),
        (("model.dim=128,130",), ("model.dim=130", "numHeads")),
        (("training.precision=int8",), ('"int8"', "float32")),
        (("model.numLayers=4,1024", "model.dim=65536"), ("numLayers=1024", "GiB")),
        ((f"training.seed={','.join(map(str, range(257)))}",), ("257 runs, over 256",)),
    ],
)
def test_grid_that_cannot_be_is_refused_with_the_remedy(axes, words) -> None:
    with pytest.raises(SweepError) as refused:
        made(*axes)
    for word in words:
        assert word in str(refused.value)


def test_every_wrong_run_is_told_and_no_right_one() -> None:
    with pytest.raises(SweepError) as refused:
        made("training.globalBatchSize=15,16,17")
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        "training.globalBatchSize=15",
        "training.globalBatchSize=17",
    ]


def test_recipe_that_is_wrong_itself_is_told_as_such() -> None:
    with pytest.raises(RecipeError, match=r"^spec\.model\.dim 130"):
        made("training.seed=1,2", text=yaml.safe_dump(demo_body(model__dim=130)))


def test_results_are_best_first_and_those_without_a_loss_last() -> None:
    losses = {"a": 2.0, "b": None, "c": 1.5, "d": None}
    found = best_first(Result(n, {}, "Training", 1, 9, loss) for n, loss in losses.items())
    assert [each.name for each in found] == ["c", "a", "b", "d"]


def test_titles_are_the_shortest_that_differ() -> None:
    assert titles(["training.steps", "postTraining[0].steps", "training.seed", "a"]) == {
        "training.steps": "training.steps",
        "postTraining[0].steps": "postTraining[0].steps",
        "training.seed": "seed",
        "a": "a",
    }


def test_dry_run_prints_the_grid_and_asks_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "-f", str(RECIPE), "--dry-run", *(f"--set={each}" for each in GRID)]
    assert main([*command, "-o", "json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    assert (len(runs), runs[0]["values"][RATE]) == (8, 3e-4)
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(run["run"] in shown for run in runs)
    assert "learningRate  globalBatchSize  weightDecay" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [([], "-f"), (["-f", "/none.yaml"], "/none.yaml"), (["-f", str(RECIPE)], "nothing varies")],
)
def test_sweep_of_nothing_says_what_to_give_and_asks_no_cluster(words, told, capsys) -> None:
    for more in (["--dry-run"], ["--kubeconfig=/none"]):
        assert main(["sweep", *words, *more]) == 1
        assert told in capsys.readouterr().err
