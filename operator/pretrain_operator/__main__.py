"""Starts the operator: `python -m pretrain_operator --settings settings.yaml`.

In a pod it uses the pod's service account; elsewhere the current kubeconfig.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import kopf
import yaml
from pydantic import ValidationError

from . import api
from .cache import ObjectCache, RunKey
from .cluster import ApiError, Cluster, is_unanswered
from .coordinator_client import CoordinatorClient, service_url, templated_url
from .handlers import Watches
from .loops import Loops
from .marking import NODES, NodeMarker
from .metrics import Metrics
from .reconcile import Reconciler
from .settings import Settings

logger = logging.getLogger(__name__)

_WAIT_FOR_CRD_SECONDS = 2.0
_NOISY_LOGGERS = ("kopf.objects", "kopf.activities", "aiohttp.access")  # a line for each event


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    log_format = {"json": kopf.LogFormat.JSON, "plain": kopf.LogFormat.FULL}[options.log_format]
    kopf.configure(verbose=options.verbose, log_format=log_format)
    if not options.verbose:
        for noisy in _NOISY_LOGGERS:
            logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        settings = read_settings(options.settings)
        asyncio.run(run(options, settings))
    except (ApiError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 1
    return 0


def read_settings(path: Path | None) -> Settings:
    """Raises OSError, and ValueError naming the field where the file has not the agreed form."""
    if path is None:
        return Settings()
    try:
        return Settings.model_validate(yaml.safe_load(path.read_text()) or {})
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path}: {where}: {first['msg']}, found {first['input']!r}") from error


async def run(options: argparse.Namespace, settings: Settings) -> None:
    """Until SIGTERM or SIGINT; raises what a watch cannot recover from."""
    _check_marks(options, settings)
    metrics = Metrics()
    if options.metrics_port:
        metrics.serve(options.metrics_port)
    url = service_url(settings.cluster_domain)
    if options.coordinator_url:
        url = templated_url(options.coordinator_url)
    cluster = await Cluster.connect(
        kubeconfig=options.kubeconfig, context=options.context, on_call=metrics.count_call
    )
    async with cluster, CoordinatorClient(url) as coordinators:
        await _wait_for_crd(cluster)
        await _reconcile_for_ever(options, settings, metrics, cluster, coordinators)


def _check_marks(options: argparse.Namespace, settings: Settings) -> None:
    if settings.node_exclusion.marks != "None" and not options.watch_nodes:
        raise ValueError(
            f"nodeExclusion.marks {settings.node_exclusion.marks} needs the Nodes to be read:"
            " leave out --no-watch-nodes, or set it to None"
        )


async def _reconcile_for_ever(
    options: argparse.Namespace,
    settings: Settings,
    metrics: Metrics,
    cluster: Cluster,
    coordinators: CoordinatorClient,
) -> None:
    cache, exclusion = ObjectCache(), settings.node_exclusion
    marker = NodeMarker(cluster, cache, exclusion, metrics, wake=lambda run: loops.wake(run))
    marks: Loops[str] = Loops(marker.mark, is_unanswered)
    wake_marks = partial(marks.wake, NODES) if exclusion.marks != "None" else _nothing
    reconciler = Reconciler(cluster, cache, coordinators, settings, metrics, on_excluded=wake_marks)
    loops: Loops[RunKey] = Loops(reconciler.reconcile, is_unanswered)
    namespaces = tuple(options.namespace)
    watches = Watches(
        cluster, cache, loops, metrics, namespaces=namespaces, nodes=options.watch_nodes
    )
    await watches.list_all()
    wake_marks()
    checking = asyncio.create_task(watches.check_for_ever(), name="check of the watches")
    try:
        await kopf.operator(
            registry=watches.registry(),
            settings=watches.kopf_settings(),
            clusterwide=not namespaces,
            namespaces=namespaces,
            standalone=True,
            liveness_endpoint=options.liveness,
        )
    finally:
        checking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await checking
        await loops.stop()
        await marks.stop()


def _nothing() -> None:
    """Nodes are not marked."""


async def _wait_for_crd(cluster: Cluster) -> None:
    while not await cluster.is_served(api.KIND):
        logger.warning("the cluster does not serve %s yet: waiting for its CRD", api.KIND)
        await asyncio.sleep(_WAIT_FOR_CRD_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pretrain_operator", description=__doc__)
    parser.add_argument(
        "--settings",
        type=Path,
        default=os.environ.get("PRETRAIN_OPERATOR_SETTINGS"),
        help="YAML file of Settings (default: $PRETRAIN_OPERATOR_SETTINGS, else built-in defaults)",
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        help="serve this namespace only; may be repeated (default: the whole cluster)",
    )
    parser.add_argument(
        "--watch-nodes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="read nodes, to tell a lost node from a slow one (default: yes)",
    )
    parser.add_argument("--liveness", help="URL to serve liveness at, like http://0.0.0.0:8081/")
    parser.add_argument("--metrics-port", type=int, default=0, help="0: none (default)")
    parser.add_argument("--log-format", choices=("json", "plain"), default="plain")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--kubeconfig", help="outside a cluster (default: $KUBECONFIG)")
    parser.add_argument("--context", help="of the kubeconfig")
    parser.add_argument(
        "--coordinator-url",
        help="outside a cluster: where coordinators answer; {namespace} and {run} are filled in",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
