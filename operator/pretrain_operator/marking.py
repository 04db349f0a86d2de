"""Keeps the marks of exclusions on Nodes as they should be. What they should be is `exclusion`'s.

One loop for all runs, so that nobody else writes them: labels by server-side apply, of which those
that are named no more go; the taint by a patch that holds only for the Node as it was seen, because
a Node's taints are one list of many owners. Being killed in between is harmless: marks are a
function of all runs' statuses and of the Nodes themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from . import exclusion
from .api.parse import run_from_object
from .api.status import RunStatus
from .cache import ObjectCache, RunKey
from .cluster import ApiError, Cluster
from .exclusion import NodeMarks
from .metrics import Metrics
from .observed import KubernetesObject
from .settings import NodeExclusion
from .wire import node_labels, node_taints

logger = logging.getLogger(__name__)

NODES = "nodes"  # the one key of its loop
_INVALID = 422  # another Node has the name
_LOOK_AGAIN_SECONDS = 30.0  # at what has come to its end


class NodeMarker:
    """`wake` hears of the runs that a mark concerns."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        settings: NodeExclusion,
        metrics: Metrics,
        *,
        wake: Callable[[RunKey], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._settings = settings
        self._metrics = metrics
        self._wake = wake
        self._now = now

    async def mark(self, _key: str = NODES) -> float:
        """One pass. Returns seconds until the next is due; raises ApiError."""
        nodes = {node["metadata"]["name"]: node for node in self._cache.all_nodes()}
        found = exclusion.node_marks(self._statuses(), nodes.values(), self._settings, self._now())
        for marks in found:
            await self._write(marks, nodes[marks.node])
        self._metrics.show_excluded_nodes(
            sum(map(exclusion.is_excluded_from_all, self._cache.all_nodes()))
        )
        return _LOOK_AGAIN_SECONDS

    def _statuses(self) -> dict[str, RunStatus]:
        bodies = (self._cache.run(key) for key in self._cache.runs())
        runs = [run_from_object(body) for body in bodies if body is not None]
        return {run.uid: run.status for run in runs}

    async def _write(self, marks: NodeMarks, node: KubernetesObject) -> None:
        try:
            if exclusion.marked_labels(node) != marks.labels:
                node = await self._cluster.apply(node_labels(marks))
                self._keep(node)
            if exclusion.is_tainted(node) != marks.is_tainted:
                self._keep(await self._cluster.patch(node_taints(marks, node)))
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict or error.code == _INVALID):
                raise
            return  # gone, made anew or changed meanwhile: the watch tells
        logger.info("node %s: excluded as %s", marks.node, dict(marks.labels) or "from no run")

    def _keep(self, node: KubernetesObject) -> None:
        for run in self._cache.put(node):
            self._wake(run)
