"""Talks to the coordinator: says where this agent stands, hears of rounds at once.

Two threads, each with a connection of its own: one reports twice a second and whenever something
changed, the other is held by the coordinator until the round changes. A coordinator that cannot be
reached is tried again for ever; the workers step meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException

from ..contract import codec, protocol
from ..contract.memory import MemoryStanding, MemoryView
from ..contract.protocol import AgentEvent, AgentReport, RoundView
from . import outbox
from .bell import Bell
from .settings import Settings

CONNECT_SECONDS = 2.0  # under the lease
FIRST_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 0.5  # sooner than a coordinator gives up an agent whose connection ended
WATCH_RETRY_SECONDS = 0.25

logger = logging.getLogger(__name__)

_NOTHING_HEARD = RoundView(coordinator="", revision=-1)


class RefusedError(Exception):
    """The coordinator answered with an error."""


@dataclass(frozen=True)
class Standing:
    """Where this agent stands, for its reports."""

    state: str = protocol.PREPARING
    round: int = 0  # the newest it took part in
    members: tuple[str, ...] = ()
    formed_at: float | None = None
    saved: bool = False  # its workers ended that round with exit_codes.SAVED
    memory: MemoryView = field(default_factory=MemoryView)  # as of its beginning


class Link:
    """Safe to use from any thread."""

    def __init__(self, settings: Settings, bell: Bell) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._standing = Standing()
        self._outbox = outbox.Outbox()
        self._memory: MemoryStanding | None = None
        self._listeners: list[Callable[[], None]] = [bell.ring]
        self._view = _NOTHING_HEARD
        self._highest_round = 0
        self._retired: set[str] = set()  # coordinators that were replaced
        self._reminded: str | None = None  # the coordinator that has heard what we carry
        self._heard_at = time.monotonic()
        self._is_dirty = True
        self._is_closed = False
        self._reporter = threading.Thread(target=self._report_for_ever, daemon=True)
        self._watcher = threading.Thread(target=self._watch_for_ever, daemon=True)

    def start(self) -> None:
        self._reporter.start()
        self._watcher.start()

    @property
    def view(self) -> RoundView:
        with self._changed:
            return self._view

    @property
    def standing(self) -> Standing:
        with self._changed:
            return self._standing

    @property
    def silent_seconds(self) -> float:
        """Since the coordinator was heard last."""
        with self._changed:
            return time.monotonic() - self._heard_at

    def stand(self, state: str, *, saved: bool | None = None) -> None:
        """Changes the state that is reported, now."""
        with self._changed:
            saved = self._standing.saved if saved is None else saved
            self._standing = replace(self._standing, state=state, saved=saved)
            self._wake()

    def enter(self, view: RoundView) -> None:
        """Takes part in the round of `view`, from now on."""
        with self._changed:
            self._standing = Standing(
                protocol.RUNNING, view.round, view.members, view.formed_at, memory=view.memory
            )
            self._wake()

    def hold(self, memory: MemoryStanding) -> None:
        """Changes what is reported of this agent's memory, now."""
        with self._changed:
            if memory != self._memory:
                self._memory = memory
                self._wake()

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener` whenever the coordinator says something new."""
        self._listeners.append(listener)

    def add(self, event: AgentEvent) -> None:
        """Queues an event; all but steps and times are sent at once."""
        with self._changed:
            self._outbox = outbox.with_event(self._outbox, event)
            if not _can_wait(event):
                self._wake()

    def close(self, state: str, seconds: float) -> None:
        """The last word: tried until the coordinator has it and all events, or for `seconds`."""
        with self._changed:
            self._standing = replace(self._standing, state=state)
            self._is_closed = True
            self._wake()
        self._reporter.join(seconds)

    def _wake(self) -> None:
        self._is_dirty = True
        self._changed.notify_all()

    def _report_for_ever(self) -> None:
        connection = self._connection(CONNECT_SECONDS)
        retry_seconds = FIRST_RETRY_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_dirty, protocol.REPORT_SECONDS)
                self._is_dirty = False
                report, closing = self._report(), self._is_closed
            try:
                body = _body(report)
                self._hear(_exchange(connection, "POST", protocol.REPORT_PATH, body), report)
            except (OSError, HTTPException, codec.DecodeError, RefusedError) as error:
                connection.close()
                if retry_seconds == FIRST_RETRY_SECONDS:
                    logger.warning("coordinator %s: %s", self._settings.coordinator, error)
                time.sleep(retry_seconds)
                retry_seconds = min(MAX_RETRY_SECONDS, 2 * retry_seconds)
                with self._changed:
                    self._is_dirty = True
            else:
                retry_seconds = FIRST_RETRY_SECONDS
                if closing and not self._has_events():
                    return

    def _watch_for_ever(self) -> None:
        connection = self._connection(protocol.HOLD_SECONDS + CONNECT_SECONDS)
        known = -1
        while True:
            try:
                view = _exchange(connection, "GET", f"{protocol.VIEW_PATH}?known={known}", None)
            except (OSError, HTTPException, codec.DecodeError, RefusedError) as error:
                connection.close()
                known = -1
                logger.debug("view: %s", error)
                time.sleep(WATCH_RETRY_SECONDS)
            else:
                known = view.revision
                self._hear(view, None)

    def _connection(self, timeout_seconds: float) -> HTTPConnection:
        host, _, port = self._settings.coordinator.rpartition(":")
        return HTTPConnection(host, int(port), timeout=timeout_seconds)

    def _has_events(self) -> bool:
        with self._changed:
            self._is_dirty = bool(self._outbox.events)
            return self._is_dirty

    def _report(self) -> AgentReport:
        mine, standing = self._settings, self._standing
        return AgentReport(
            agent=mine.agent,
            incarnation=mine.incarnation,
            attempt=mine.attempt,
            slot=mine.slot,
            node=mine.node,
            state=standing.state,
            time=time.time(),
            round=standing.round,
            highest_round=max(standing.round, self._highest_round),
            members=standing.members,
            formed_at=standing.formed_at,
            saved=standing.saved,
            first_event=self._outbox.first,
            events=outbox.next_batch(self._outbox),
            carried=self._view.carried,
            memory=self._memory,
        )

    def _hear(self, view: RoundView, answered: AgentReport | None) -> None:
        with self._changed:
            self._heard_at = time.monotonic()
            if view.coordinator in self._retired:
                return
            if answered:
                self._outbox = outbox.without_acknowledged(self._outbox, view.acknowledged)
                self._reminded = view.coordinator
            known = self._view
            if view.coordinator == known.coordinator and view.revision < known.revision:
                return  # the two connections crossed
            if view.coordinator != known.coordinator:
                self._retired.add(known.coordinator)
            if view.coordinator != self._reminded:  # it has not heard yet what we carry
                view = replace(view, carried=known.carried)
            self._view = view
            self._highest_round = max(self._highest_round, view.round)
            is_news = (view.coordinator, view.revision) != (known.coordinator, known.revision)
        if is_news:
            for listener in self._listeners:
                listener()


def _can_wait(event: AgentEvent) -> bool:
    """For the next report: what comes again and again."""
    told = event.worker
    return told is not None and (told.step is not None or told.own_time is not None)


def _body(report: AgentReport) -> bytes:
    """With as many of its events as the coordinator takes: the others come with the next."""
    body = codec.to_json(report).encode()
    while len(body) > protocol.MAX_REPORT_BYTES and report.events:
        report = replace(report, events=report.events[: len(report.events) // 2])
        body = codec.to_json(report).encode()
    return body


def _exchange(connection: HTTPConnection, method: str, path: str, body: bytes | None) -> RoundView:
    """Raises OSError, HTTPException, codec.DecodeError, RefusedError."""
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RefusedError(f"{answer.status}: {text.decode(errors='replace').strip()}")
    return codec.from_json(RoundView, text)
