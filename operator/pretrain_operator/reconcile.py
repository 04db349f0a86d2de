"""One pass over one run: observe, plan, commit, act, report. What to do is `plan`'s decision.

The order is the crash safety: nothing is touched before the status that announces it has been
committed, so a pass may end anywhere and the next one, of this process or another, goes on.
What this keeps in memory saves calls, and tells how long a coordinator has been silent: losing it
changes nothing but when.

    observe   cache (watches and own writes), the storage claim, the coordinator's document
    commit    the whole status, with resourceVersion; a conflict means that the cache is behind:
              read the run again and plan anew
    act       deletions first, then server-side apply and creation, in the plan's order; a child
              that the API server refuses is told in a condition and tried again every 30 s
    report    Events; their names are functions of what they tell, so a second telling is a 409

A pass that fails raises, after it has told so in a condition if that can be written: its loop
tries it again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pretrain_llm.contract.status import StatusDocument

from . import api
from .api.parse import run_from_object
from .api.status import RunStatus
from .cache import ObjectCache, RunKey
from .cluster import ApiError, Cluster, is_unanswered
from .conditions import state
from .coordinator_client import CoordinatorClient
from .loops import GoneError
from .metrics import Metrics
from .names import COMPONENT_LABEL
from .observed import KubernetesObject, ObjectKey, Observed, Run
from .plan import plan
from .planned import Deletion, Event, Plan
from .refusals import (
    RETRY_SECONDS,
    Refusal,
    failure,
    is_pointless,
    with_failure,
    with_refusals,
)
from .settings import Settings
from .wire import event_object, lost_pod, status_object

logger = logging.getLogger(__name__)

_BOUND_CLAIM_SECONDS = 300.0  # a claim is not watched; how long what was read of it holds
_UNBOUND_CLAIM_SECONDS = 15.0
_INVALID = 422
_OLDEST_EVENT_SECONDS = 3600.0  # an Event lives so long: an older story has been told


@dataclass
class _Memory:
    """What is remembered of a run between passes."""

    uid: str
    claim_read_at: float = 0.0
    claim: KubernetesObject | None = None
    document_read_at: float = 0.0
    silent_since: float | None = None  # the coordinator
    told: set[str] = field(default_factory=set)
    refusals: dict[ObjectKey, Refusal] = field(default_factory=dict)
    failure: str | None = None  # of the last pass


_Write = Callable[[RunKey, KubernetesObject, _Memory], Awaitable[None]]


class Reconciler:
    def __init__(
        self,
        cluster: Cluster,
        cache: ObjectCache,
        coordinators: CoordinatorClient,
        settings: Settings,
        metrics: Metrics,
        now: Callable[[], float] = time.time,
        on_excluded: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._coordinators = coordinators
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._on_excluded = on_excluded  # that other nodes are excluded than before
        self._memories: dict[RunKey, _Memory] = {}

    async def reconcile(self, key: RunKey) -> float | None:
        """One pass. Returns seconds until the next is due; raises ApiError, GoneError."""
        body = self._cache.run(key)
        if body is None:
            self._memories.pop(key, None)
            self._metrics.forget(key)
            raise GoneError(key)
        run = run_from_object(body)
        if run.deleting:
            return None  # its children go by their owner references
        memory = self._memory(key, run.uid)
        try:
            with self._metrics.timed_pass():
                return await self._pass(key, body, run, memory)
        except Exception as error:
            await self._tell_failure(key, memory, error)
            raise

    async def _pass(
        self, key: RunKey, body: KubernetesObject, run: Run, memory: _Memory
    ) -> float | None:
        observed = await self._observe(key, run, memory)
        planned = plan(run, observed, self._settings)
        status = with_refusals(
            planned.status, memory.refusals, generation=run.generation, now=observed.now
        )
        status = with_failure(status, memory.failure, generation=run.generation, now=observed.now)
        if status != run.status and not await self._commit(key, body, run, status):
            return 0.0
        self._metrics.show(key, status)
        await self._delete_all(key, planned, observed)
        refusals = await self._make_all(key, planned, memory, observed.now)
        is_news = memory.failure is not None or _messages(refusals) != _messages(memory.refusals)
        memory.refusals = refusals
        await self._report(run, planned.events, memory, observed.now)
        memory.failure = None
        return 0.0 if is_news else self._next_turn(planned, memory, observed)

    def _memory(self, key: RunKey, uid: str) -> _Memory:
        memory = self._memories.get(key)
        if memory is None or memory.uid != uid:
            memory = self._memories[key] = _Memory(uid)
        return memory

    # observe

    async def _observe(self, key: RunKey, run: Run, memory: _Memory) -> Observed:
        now = self._now()
        objects = self._cache.children(key)
        if run.spec is not None:
            claim_name = run.spec.storage.claim_name
            if (claim := await self._claim(key, claim_name, memory, now)) is not None:
                objects[ObjectKey("PersistentVolumeClaim", claim_name)] = claim
        document = None
        if any(_is_running_coordinator(pod) for pod in _pods(objects)):
            document = await self._coordinators.status(key)
            memory.document_read_at = now
        memory.silent_since = None if document else memory.silent_since or now
        nodes = self._cache.nodes(_nodes(objects, run.status, document))
        return Observed(now, objects, nodes, document, memory.silent_since)

    async def _claim(
        self, key: RunKey, name: str, memory: _Memory, now: float
    ) -> KubernetesObject | None:
        """Users' own claims carry no label, so no watch shows them: read, and read again later."""
        known = memory.claim
        if known is not None and known["metadata"]["name"] != name:
            known, memory.claim_read_at = None, 0.0
        is_bound = known is not None and known.get("status", {}).get("phase") == "Bound"
        holds_seconds = _BOUND_CLAIM_SECONDS if is_bound else _UNBOUND_CLAIM_SECONDS
        if now - memory.claim_read_at >= holds_seconds:
            known = await self._cluster.get("PersistentVolumeClaim", key.namespace, name)
            memory.claim_read_at = now
        memory.claim = known
        return known

    # commit

    async def _commit(
        self, key: RunKey, body: KubernetesObject, run: Run, status: RunStatus
    ) -> bool:
        """False where the run has changed under us: then the cache has been brought up to date."""
        try:
            written = await self._cluster.replace_status({**body, "status": status_object(status)})
        except ApiError as error:
            if not (error.is_conflict or error.is_not_found):
                raise
            await self._look_again(key, body)
            return False
        self._cache.put(written)
        if status.excluded_nodes != run.status.excluded_nodes:
            self._on_excluded()
        if (before := state(run.status)) != (after := state(status)):
            logger.info("%s/%s: %s -> %s", *key, before, after)
        return True

    async def _tell_failure(self, key: RunKey, memory: _Memory, error: Exception) -> None:
        """An API server that does not answer is not asked to write it down."""
        body = self._cache.run(key)
        if body is None or is_unanswered(error):
            return
        memory.failure = failure(error)
        run = run_from_object(body)
        status = with_failure(
            run.status, memory.failure, generation=run.generation, now=self._now()
        )
        try:
            if status != run.status:
                await self._commit(key, body, run, status)
        except ApiError as another:
            logger.warning("%s/%s: the failed pass is not told: %s", *key, another.message)

    async def _look_again(self, key: RunKey, known: KubernetesObject) -> None:
        current = await self._cluster.get(api.KIND, key.namespace, key.name)
        if current is None:
            self._cache.remove(known)
        else:
            self._cache.put(current)

    # act

    async def _delete_all(self, key: RunKey, planned: Plan, observed: Observed) -> None:
        for deletion in planned.delete:
            known = observed.objects.get(deletion.key)
            if known is not None and _is_on_its_way(known, deletion):
                continue
            if known is not None and deletion.key.kind == "Pod" and deletion.grace_seconds == 0:
                await self._give_up(key, known, observed.now)
            await self._delete(key, deletion, known)

    async def _make_all(
        self, key: RunKey, planned: Plan, memory: _Memory, now: float
    ) -> dict[ObjectKey, Refusal]:
        """Returns what the API server refused, in its words; raises ApiError for the rest."""
        refusals: dict[ObjectKey, Refusal] = {}
        writes: list[tuple[KubernetesObject, _Write]]
        writes = [(wanted, self._apply) for wanted in planned.apply]
        writes += [(wanted, self._create) for wanted in planned.create]
        for wanted, write in writes:
            child = ObjectKey(wanted["kind"], wanted["metadata"]["name"])
            before, digest = memory.refusals.get(child), _digest(wanted)
            if before is not None and is_pointless(before, digest, now):
                refusals[child] = before
                continue
            try:
                await write(key, wanted, memory)
            except ApiError as error:
                if not error.is_refusal:
                    raise
                refusals[child] = Refusal(error.message, digest, now)
                logger.warning(
                    "%s/%s: %s %s refused: %s", *key, child.kind, child.name, error.message
                )
        return refusals

    async def _apply(self, key: RunKey, wanted: KubernetesObject, memory: _Memory) -> None:
        applied = await self._cluster.apply(wanted)
        logger.info("%s/%s: applied %s %s", *key, wanted["kind"], wanted["metadata"]["name"])
        if applied["kind"] == "PersistentVolumeClaim":
            memory.claim = applied
        else:
            self._cache.put(applied)

    async def _create(self, key: RunKey, wanted: KubernetesObject, _memory: _Memory) -> None:
        try:
            self._cache.put(await self._cluster.create(wanted))
        except ApiError as error:
            if not error.is_conflict:  # made already, and the watch is behind
                raise
        logger.info("%s/%s: created %s %s", *key, wanted["kind"], wanted["metadata"]["name"])

    async def _give_up(self, key: RunKey, pod: KubernetesObject, now: float) -> None:
        """Before a pod is deleted by force: its kubelet will not say any more how it ended."""
        metadata = pod["metadata"]
        try:
            failed = lost_pod(key.namespace, metadata["name"], metadata["uid"], now)
            self._cache.put(await self._cluster.apply_status(failed))
        except ApiError as error:
            # Gone, or made anew under its name: another uid is refused as invalid.
            if not (error.is_not_found or error.is_conflict or error.code == _INVALID):
                raise

    async def _delete(
        self, key: RunKey, deletion: Deletion, known: KubernetesObject | None
    ) -> None:
        kind, name = deletion.key.kind, deletion.key.name
        uid = deletion.uid or (known["metadata"]["uid"] if known else None)
        try:
            left = await self._cluster.delete(
                kind, key.namespace, name, uid=uid, grace_seconds=deletion.grace_seconds
            )
        except ApiError as error:
            if not (error.is_not_found or error.is_conflict):
                raise
            left = {}  # gone already, or another object has the name: not the one we meant
        logger.info("%s/%s: deleted %s %s", *key, kind, name)
        if known is None:
            return
        if left.get("kind") == kind and left["metadata"].get("deletionTimestamp"):
            self._cache.put(left)  # on its way out
        else:
            self._cache.remove(known)

    # report

    async def _report(
        self, run: Run, events: tuple[Event, ...], memory: _Memory, now: float
    ) -> None:
        for event in events:
            if event.key in memory.told or now - event.time > _OLDEST_EVENT_SECONDS:
                continue
            try:
                await self._cluster.create(event_object(run, event))
            except ApiError as error:
                if is_unanswered(error):
                    raise
                if not error.is_conflict:  # a namespace that is going away, an RBAC without events
                    logger.warning("event %s of %s: %s", event.reason, run.name, error.message)
            memory.told.add(event.key)

    # and again

    def _next_turn(self, planned: Plan, memory: _Memory, observed: Observed) -> float | None:
        turns = [planned.requeue_after_seconds]
        if observed.coordinator is not None or memory.document_read_at == observed.now:
            turns.append(self._settings.poll_interval_seconds)
        if memory.refusals:
            turns.append(RETRY_SECONDS)
        return min((turn for turn in turns if turn is not None), default=None)


def _pods(objects: Mapping[ObjectKey, KubernetesObject]) -> list[KubernetesObject]:
    return [body for key, body in objects.items() if key.kind == "Pod"]


def _nodes(
    objects: Mapping[ObjectKey, KubernetesObject],
    status: RunStatus,
    document: StatusDocument | None,
) -> set[str]:
    """Those that pods are on or were lost with, that faults blame, and that are excluded."""
    names = {pod["spec"].get("nodeName") for pod in _pods(objects)}
    names |= {disruption.node for disruption in status.disruptions}
    names |= {incident.suspect.node for incident in status.incidents}
    names |= {entry.name for entry in status.excluded_nodes}
    names |= {incident.node for incident in document.incidents} if document else set()
    return {name for name in names if name}


def _is_on_its_way(body: KubernetesObject, deletion: Deletion) -> bool:
    """Whether asking once more would change nothing."""
    metadata = body["metadata"]
    if deletion.grace_seconds is None:
        return metadata.get("deletionTimestamp") is not None
    is_forced = metadata.get("deletionGracePeriodSeconds") == deletion.grace_seconds
    return is_forced and body.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _is_running_coordinator(pod: KubernetesObject) -> bool:
    """Others are not asked: their names do not resolve, and a pass would wait for nothing."""
    is_coordinator = pod["metadata"].get("labels", {}).get(COMPONENT_LABEL) == "coordinator"
    return bool(is_coordinator and pod.get("status", {}).get("phase") == "Running")


def _messages(refusals: Mapping[ObjectKey, Refusal]) -> dict[ObjectKey, str]:
    return {child: refusal.message for child, refusal in refusals.items()}


def _digest(wanted: KubernetesObject) -> str:
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
