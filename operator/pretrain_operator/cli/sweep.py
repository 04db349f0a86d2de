"""`pretrain sweep`: a grid of runs from one recipe, and how they compare.

    pretrain sweep -f recipe.yaml --set training.optimizer.learningRate=3e-4,6e-4 --dry-run
    pretrain sweep -f recipe.yaml --set training.seed=1,2 --set training.steps=1000,2000
    pretrain sweep status NAME

All runs are checked before the first is applied. Applying the same grid again changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from .. import api
from ..cluster import Cluster
from ..names import SWEEP_LABEL, SWEEP_VALUES_ANNOTATION
from ..observed import KubernetesObject
from ..planner.recipe import RecipeError
from ..planner.sweep import Child, Result, SweepError, axis, best_first, children, titles
from .render import run_state, run_status

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_MANAGER = "pretrain-sweep"  # of the fields, so that another one's edit is seen as such
_NONE = "–"


def register(commands: Commands, place: argparse.ArgumentParser) -> None:
    """Adds the command; `place` has the options that say which cluster and namespace."""
    one = commands.add_parser("sweep", parents=[place], help="a grid of runs, and their results")
    one.add_argument("-f", "--filename", help="manifest of a PretrainRun; - for stdin")
    one.add_argument(
        "--set",
        action="append",
        default=[],
        dest="axes",
        metavar="PATH=V,V",
        help="a field below spec and its values, each JSON or text; several make a grid",
    )
    one.add_argument("--name", help="of the sweep (default: the recipe's)")
    one.add_argument(
        "--dry-run",
        dest="offline",
        action="store_const",
        const=show,
        default=argparse.SUPPRESS,
        help="print the runs, ask no cluster",
    )
    one.add_argument("-o", "--output", choices=("text", "json"), default="text")
    one.set_defaults(command=apply, prepare=prepared)
    more = one.add_subparsers(metavar="status NAME")
    results = more.add_parser("status", parents=[place], help="the runs' results, best first")
    results.add_argument("sweep", metavar="NAME")
    results.add_argument("-o", "--output", choices=("text", "json"), default="text")
    results.set_defaults(command=status, prepare=None)


def prepared(options: argparse.Namespace) -> bool:
    """Whether the grid is right, with its runs in `options`; no cluster is asked before it is."""
    try:
        options.children = _children(options)
    except (OSError, SweepError, RecipeError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return False
    return True


def show(options: argparse.Namespace) -> int:
    if not prepared(options):
        return 1
    _print_children(options.children, {}, options.output)
    return 0


async def apply(cluster: Cluster, options: argparse.Namespace) -> int:
    """Each run in turn; a refusal by the API server leaves those before it, and is told."""
    found: Sequence[Child] = options.children
    try:
        known = {child.name: await _known(cluster, options, child) for child in found}
    except SweepError as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 1
    outcomes = {}
    for child in found:
        place = _namespace(options, child)
        outcomes[child.name] = await _applied(cluster, place, child, known[child.name])
    _print_children(found, outcomes, options.output)
    return 0


async def status(cluster: Cluster, options: argparse.Namespace) -> int:
    selector = f"{SWEEP_LABEL}={options.sweep}"
    runs = await cluster.list(api.KIND, options.namespace, label_selector=selector)
    if not runs.items:
        print(
            f"pretrain: there is no run of a sweep {options.sweep!r} in namespace"
            f" {options.namespace!r}; `kubectl get pretrainruns -L {SWEEP_LABEL}` lists them",
            file=sys.stderr,
        )
        return 1
    results = best_first(result(run) for run in runs.items)
    if options.output == "json":
        print(json.dumps([_result_document(each) for each in results], indent=2))
    else:
        Console().print(results_view(results))
    return 0


def result(run: KubernetesObject) -> Result:
    metadata, training = run["metadata"], run_status(run).training
    values = json.loads(metadata.get("annotations", {}).get(SWEEP_VALUES_ANNOTATION, "{}"))
    return Result(
        name=metadata["name"],
        values=values,
        state=run_state(run),
        step=training.step if training else None,
        total_steps=training.total_steps if training else None,
        loss=training.loss if training else None,
    )


def results_view(results: Sequence[Result]) -> Table:
    paths = sorted({path for each in results for path in each.values})
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", no_wrap=True)
    for heading in (*titles(paths).values(), "state", "step", "loss"):
        table.add_column(heading, justify="right")
    for each in results:
        step = _NONE if each.step is None else f"{each.step}/{each.total_steps}"
        loss = _NONE if each.loss is None else f"{each.loss:.4f}"
        shown = (_shown(each.values.get(path, _NONE)) for path in paths)
        table.add_row(each.name, *shown, each.state, step, loss)
    return table


def _result_document(each: Result) -> dict[str, Any]:
    return {
        "run": each.name,
        "values": dict(each.values),
        "state": each.state,
        "step": each.step,
        "totalSteps": each.total_steps,
        "loss": each.loss,
    }


def _children(options: argparse.Namespace) -> tuple[Child, ...]:
    """Raises OSError, SweepError, RecipeError."""
    if options.filename is None:
        raise SweepError("name a recipe with -f, or ask for results: pretrain sweep status NAME")
    given = options.filename
    text = sys.stdin.read() if given == "-" else Path(given).read_text(encoding="utf-8")
    return children(text, [axis(each) for each in options.axes], options.name)


async def _known(
    cluster: Cluster, options: argparse.Namespace, child: Child
) -> KubernetesObject | None:
    """The run as it is there. Raises SweepError where it is not this sweep's."""
    found = await cluster.get(api.KIND, _namespace(options, child), child.name)
    if found is None:
        return None
    own, other = child.body["metadata"]["labels"][SWEEP_LABEL], _sweep(found)
    if own != other:
        raise SweepError(
            f"{child.name} is there, but is of sweep {other}, not of {own}; choose another --name"
        )
    return found


def _namespace(options: argparse.Namespace, child: Child) -> str:
    """The recipe's, unless -n names another; else the context's."""
    own: str | None = child.body["metadata"].get("namespace")
    return options.namespace if options.is_namespace_given or own is None else own


def _sweep(run: KubernetesObject) -> str | None:
    found: str | None = run["metadata"].get("labels", {}).get(SWEEP_LABEL)
    return found


async def _applied(
    cluster: Cluster, namespace: str, child: Child, known: KubernetesObject | None
) -> str:
    body = {**child.body, "metadata": {**child.body["metadata"], "namespace": namespace}}
    made = await cluster.apply(body, manager=_MANAGER)
    if known is None:
        return "created"
    same = made["metadata"]["generation"] == known["metadata"]["generation"]
    return "unchanged" if same else "changed"


def _print_children(found: Iterable[Child], outcomes: Mapping[str, str], output: str) -> None:
    runs = list(found)
    if output == "json":
        documents = [
            {"run": child.name, "values": dict(child.values)}
            | ({"outcome": outcomes[child.name]} if outcomes else {})
            for child in runs
        ]
        print(json.dumps(documents, indent=2))
        return
    paths = list(runs[0].values)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("run", no_wrap=True)
    for heading in (*titles(paths).values(), *(["outcome"] if outcomes else [])):
        table.add_column(heading, justify="right")
    for child in runs:
        shown = (_shown(child.values[path]) for path in paths)
        table.add_row(child.name, *shown, *([outcomes[child.name]] if outcomes else []))
    Console().print(table)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
