"""`make demo`: one PretrainRun from raw text, through a killed worker, to an answer from vLLM."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from pretrain_operator.cli.render import view
from tests.cluster import ClusterError

from . import place, report, scenario
from .kube import StepError

CORPUS = scenario.ROOT / "build" / "corpus"
QUESTION = "What is a Python list?"
KILL_AT_STEP = 70

console = Console()


def say(text: str) -> None:
    console.print(f"[bold cyan]{time.strftime('%H:%M:%S')}[/] {text}", highlight=False)


class Screen:
    """The run as `pretrain status --watch` shows it; line by line where there is no terminal."""

    def __init__(self) -> None:
        self.live: Live | None = None
        self._last = ""

    def show(self, run: scenario.Object) -> None:
        if self.live:
            self.live.update(view(run))
        elif (line := self._line(run)) != self._last:
            self._last = line
            console.print("         " + line, highlight=False, markup=False)

    @contextmanager
    def on(self) -> Iterator[None]:
        if not console.is_terminal:
            yield
            return
        with Live(console=console, refresh_per_second=2) as self.live:
            yield
        self.live = None

    @staticmethod
    def _line(run: scenario.Object) -> str:
        status = run.get("status", {})
        training = status.get("training", {})
        state = scenario.condition(run, "Succeeded").get("reason", "Pending")
        if not training.get("step"):
            return str(state)
        latest = status.get("checkpoints", {}).get("latest", {})
        return (
            f"{state}: step {training['step']}/{training['totalSteps']}, "
            f"loss {training['loss']:.3f}, {training.get('tokensPerSecond') or 0:,.0f} tokens/s, "
            f"restarts {status.get('budgets', {}).get('total', 0)}, "
            f"checkpoint {latest.get('step', '–')}"
        )


def run_demo(where: place.Place, started: float) -> dict[str, object]:
    """The scenario of recipes/demo.yaml. Raises StepError."""
    kube, screen = where.kube, Screen()
    run = scenario.manifest(scenario.RECIPE)
    say("installing the operator with Helm")
    scenario.install_operator(kube, where.values)
    say("loading the corpus onto the run's volume")
    size = scenario.load_corpus(kube, run, CORPUS)
    say(f"{size / 1e6:.0f} MB of text are there; kubectl apply -f recipes/demo.yaml")
    kube.run("apply", "-f", str(scenario.RECIPE))
    watch = scenario.RunWatch(kube, run["metadata"]["name"], run["metadata"]["namespace"],
                              screen.show)  # fmt: skip
    with screen.on():
        watch.until_step(KILL_AT_STEP)
        rss = scenario.operator_rss_bytes(kube)
        pod = watch.kill_one_worker()
        say(f"killed a worker in pod {pod} with SIGKILL; nothing else is done by hand")
        watch.until_succeeded()
    answer = watch.ask(QUESTION)
    console.print(f"\n[bold]{QUESTION}[/]\n{answer}\n", markup=True, highlight=False)
    return report.report(
        watch.object(),
        chat={"question": QUESTION, "answer": answer},
        operator_rss_bytes=rss,
        seconds_total=time.monotonic() - started,
    )


def write(document: dict[str, object]) -> None:
    place.DIRECTORY.mkdir(parents=True, exist_ok=True)
    (place.DIRECTORY / "report.json").write_text(json.dumps(document, indent=2) + "\n")
    page = report.markdown(document)
    (place.DIRECTORY / "report.md").write_text(page)
    console.print(page, markup=False, highlight=False)


def farewell(kubeconfig: Path) -> None:
    console.print(
        f"""The cluster is still up. To look around:
  export KUBECONFIG={kubeconfig}
  kubectl get pretrainruns -A
  bin/pretrain status demo -n llm
  bin/pretrain chat demo -n llm "What is an index?"
`make demo-down` removes it all.""",
        markup=False, highlight=False,
    )  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--cluster", choices=["local", "current"], default="local")
    parser.add_argument("--image-prefix", help="with --cluster current: where the images are")
    parser.add_argument("--values", type=Path, help="with --cluster current: chart values")
    parser.add_argument("--down", action="store_true", help="only remove the local cluster")
    return parser.parse_args()


@contextmanager
def chosen_place(options: argparse.Namespace) -> Iterator[place.Place]:
    values = place.DIRECTORY / "values.yaml"
    if options.cluster == "current":
        yield place.current(values, options.image_prefix, options.values)
        return
    say("starting Kubernetes: control plane and three nodes")
    cluster = place.demo_cluster()
    try:
        with place.local(cluster, values, keep=options.keep) as where:
            yield where
    finally:
        if options.keep and cluster.kubeconfig.exists():
            farewell(cluster.kubeconfig)


def main() -> int:
    options, started = arguments(), time.monotonic()
    if options.down:
        place.demo_cluster().down()
        return 0
    place.DIRECTORY.mkdir(parents=True, exist_ok=True)
    try:
        with chosen_place(options) as where:
            document = run_demo(where, started)
            write(document)
    except (StepError, ClusterError) as error:
        console.print(f"[bold red]failed:[/] {error}", highlight=False)
        return 1
    broken = report.shortcomings(document)
    for promise in broken:
        console.print(f"[bold red]not kept:[/] {promise}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
