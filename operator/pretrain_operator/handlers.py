"""The watches: kopf's, used level-triggered. No decision here, and nothing kept in the objects.

Only `on.event` handlers: no annotations, no finalizers, no progress storage, so kopf never writes
to an object and an operator that starts anew has nothing to make up for. An event puts the object
into the cache and wakes its run; what the event was is not looked at.

Watches can end silently, and kopf does not tell of objects that went while a watch was broken.
So a full listing is held against the cache now and then: what is still different some seconds
later, the watches have missed. It is put right at once, and if that happens twice in a row the
liveness probe fails and the operator is started anew.

    startup listing ─▶ cache ◀── watch events
                         │  ▲
      wake the run ◀─────┘  └── every 10 minutes: listing, wait 10 s, compare
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import kopf

from . import api
from .cache import ObjectCache, RunKey
from .cluster import RESOURCES, ApiError, Cluster
from .loops import LONGEST_SLEEP_SECONDS, Loops
from .metrics import Metrics
from .names import RUN_LABEL

logger = logging.getLogger(__name__)

CHILD_KINDS = ("Job", "Pod", "Deployment", "Service", "ConfigMap")

_FIRST_CHECK_SECONDS = 15.0  # soon after the start: between our listing and kopf's is a gap
_CHECK_SECONDS = 600.0
_RECHECK_SECONDS = 60.0  # after a difference
_WATCH_LAG_SECONDS = 10.0  # a working watch shows a change in far less
_LARGEST_PASS_AGE_SECONDS = LONGEST_SLEEP_SECONDS + 120.0  # a pass may wait for the API server


class Watches:
    """Feeds the cache, wakes the loops, and says whether both still work."""

    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        loops: Loops[RunKey],
        metrics: Metrics,
        *,
        namespaces: tuple[str, ...],
        nodes: bool,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._loops = loops
        self._metrics = metrics
        self._namespaces: tuple[str | None, ...] = namespaces or (None,)
        self._kinds = (api.KIND, *CHILD_KINDS, *(("Node",) if nodes else ()))
        self._differences_in_a_row = 0

    def registry(self) -> kopf.OperatorRegistry:
        """Handlers of this operator alone, not in kopf's global registry."""
        registry = kopf.OperatorRegistry()
        for kind in self._kinds:
            resource = RESOURCES[kind]
            group, _, version = resource.api_version.rpartition("/")
            kopf.on.event(group, version, resource.plural, id=kind, registry=registry)(self._see)
        kopf.on.login(registry=registry)(self._login)
        kopf.on.probe(id="passes", registry=registry)(self._probe)
        return registry

    def kopf_settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False  # Events are the decision core's
        settings.scanning.disabled = True  # no need to read namespaces and CRDs
        settings.process.ultimate_exiting_timeout = 10
        for kind in CHILD_KINDS:
            resource = RESOURCES[kind]
            group, _, version = resource.api_version.rpartition("/")
            key = (group, version, resource.plural)
            settings.watching.label_selectors[key] = RUN_LABEL  # on the server's side
        return settings

    async def list_all(self) -> None:
        """Before the first watch: from here on the cache is whole. Wakes every run."""
        for kind, namespace, listed in await self._listing():
            self._cache.replace(kind, namespace, listed.items, listed.resource_version)
        for run in self._cache.runs():
            self._loops.wake(run)

    async def check_for_ever(self) -> None:
        delay = _FIRST_CHECK_SECONDS
        while True:
            await asyncio.sleep(delay)
            try:
                delay = await self._check()
            except ApiError as error:
                logger.warning("cannot list for the comparison with the watches: %s", error)
                delay = _RECHECK_SECONDS

    async def _check(self) -> float:
        """Returns seconds until the next."""
        listing = await self._listing()
        await asyncio.sleep(_WATCH_LAG_SECONDS)
        missed: set[RunKey] = set()
        for kind, namespace, listed in listing:
            missed |= self._cache.replace(kind, namespace, listed.items, listed.resource_version)
        for run in missed:
            self._loops.wake(run)
        if not missed:
            self._differences_in_a_row = 0
            return _CHECK_SECONDS
        self._differences_in_a_row += 1
        self._metrics.count_drift(len(missed))
        logger.warning("the watches missed changes of %d runs", len(missed))
        return _RECHECK_SECONDS

    async def _listing(self) -> list[tuple[str, str | None, Any]]:
        listing = []
        for kind in self._kinds:
            selector = RUN_LABEL if kind in CHILD_KINDS else ""
            for namespace in self._namespaces if RESOURCES[kind].namespaced else (None,):
                listed = await self._cluster.list(kind, namespace, label_selector=selector)
                listing.append((kind, namespace, listed))
        return listing

    async def _see(self, event: kopf.RawEvent, **_: Any) -> None:
        body: Any = event["object"]
        woken = self._cache.remove(body) if event["type"] == "DELETED" else self._cache.put(body)
        for run in woken:
            self._loops.wake(run)

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        """The same server in the same name as our own client; asked again when a token expires."""
        found = await self._cluster.connection()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.insecure,
            token=found.token,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
        )

    async def _probe(self, **_: Any) -> dict[str, float]:
        """An exception makes the probe fail."""
        age_seconds = self._loops.oldest_pass_seconds()
        if age_seconds > _LARGEST_PASS_AGE_SECONDS:
            raise kopf.PermanentError(f"a run has had no pass for {age_seconds:.0f} s")
        if self._differences_in_a_row >= 2:
            raise kopf.PermanentError("the watches miss changes")
        return {"oldestPassSeconds": round(age_seconds, 3)}
