"""HTTP around the ledger: decodes, takes the lock, answers. Decides nothing.

POST /agents/report   GET /agents/view   GET /status   GET /metrics   GET /healthz
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..contract import codec, protocol
from ..contract.protocol import AgentReport, RoundView
from ..contract.status import StatusDocument
from . import ledger, metrics
from .ledger import Ledger

TICK_SECONDS = 0.1
IDLE_SECONDS = 60.0  # after which a silent connection is closed

logger = logging.getLogger(__name__)


class AttemptMismatchError(Exception):
    """An agent of another attempt: its Job is on its way out, or this coordinator is."""


class Coordinator:
    """The ledger behind a lock; waiters are woken when the agents' view changes.

    `renew_store` is called for every round that this coordinator names, before anybody hears of it.
    """

    def __init__(self, opened: Ledger, renew_store: Callable[[], None]) -> None:
        self._ledger = opened
        self._renew_store = renew_store
        self._changed = threading.Condition()

    def report(self, report: AgentReport) -> RoundView:
        """Raises AttemptMismatchError."""
        mine = self._ledger.identity.attempt
        if report.attempt != mine:
            raise AttemptMismatchError(
                f"attempt: {report.attempt} reports to the coordinator of {mine}"
            )
        with self._changed:
            self._replace(ledger.told(self._ledger, report, time.time()))
            return ledger.view(self._ledger, report.incarnation)

    def view(self, known_revision: int) -> RoundView:
        """The view once it is newer than `known_revision`, or after the hold."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ledger.revision != known_revision, protocol.HOLD_SECONDS
            )
            return ledger.view(self._ledger)

    def hang_up(self, agent: str) -> None:
        """An agent's connection ended."""
        with self._changed:
            self._replace(ledger.hung_up(self._ledger, agent, time.time()))

    def status(self) -> StatusDocument:
        with self._changed:
            return ledger.status(self._ledger, time.time())

    def tick(self) -> None:
        with self._changed:
            self._replace(ledger.ticked(self._ledger, time.time()))

    def run_clock(self) -> None:
        while True:
            self.tick()
            time.sleep(TICK_SECONDS)

    def _replace(self, after: Ledger) -> None:
        if ledger.names_a_round(self._ledger, after):
            self._renew_store()
        before, self._ledger = self._ledger, after
        if before.revision != after.revision:
            if (told := _described(ledger.view(after))) != _described(ledger.view(before)):
                logger.info("%s", told)
            self._changed.notify_all()


def _described(view: RoundView) -> str:
    if view.finished:
        return f"round {view.round}: the run is finished"
    if view.broken:
        return f"round {view.round} is broken"
    if view.draining:
        return f"round {view.round} saves, to go on with more nodes"
    return f"round {view.round}: {', '.join(view.members)}"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # every agent comes back at once after an outage

    def __init__(self, port: int, coordinator: Coordinator) -> None:
        self.coordinator = coordinator
        self.reporters: dict[str, RequestHandler] = {}  # the newest connection of each agent
        super().__init__(("", port), RequestHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        if isinstance(sys.exception(), ConnectionError | TimeoutError):
            return  # an agent that was killed, or came back with a new connection
        logger.exception("request of %s", client_address)


class RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet for headers and body
    server: Server
    reporter: str | None = None  # the agent whose reports come over this connection

    def finish(self) -> None:
        super().finish()
        if self.reporter and self.server.reporters.get(self.reporter) is self:
            del self.server.reporters[self.reporter]
            self.server.coordinator.hang_up(self.reporter)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        coordinator = self.server.coordinator
        if url.path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n", "text/plain")
        elif url.path == "/status":
            self._answer_json(coordinator.status())
        elif url.path == "/metrics":
            text = metrics.exposition(coordinator.status)
            self._answer(HTTPStatus.OK, text, "text/plain; version=0.0.4; charset=utf-8")
        elif url.path == protocol.VIEW_PATH:
            self._answer_view(parse_qs(url.query))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"path: {url.path!r} is not served")

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return
        if self.path != protocol.REPORT_PATH:
            self._refuse(HTTPStatus.NOT_FOUND, f"path: {self.path!r} is not served")
            return
        try:
            report = codec.from_json(AgentReport, body)
            self.server.reporters[report.agent] = self
            view = self.server.coordinator.report(report)
        except codec.DecodeError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except AttemptMismatchError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))
        else:
            self.reporter = report.agent
            self._answer_json(view)

    def _answer_view(self, query: dict[str, list[str]]) -> None:
        known = query.get("known", ["-1"])[0]
        if not known.lstrip("-").isdecimal():
            self._refuse(HTTPStatus.BAD_REQUEST, f"known: expected a number, found {known!r}")
            return
        self._answer_json(self.server.coordinator.view(int(known)))

    def _body(self) -> bytes | None:
        """The request's body; None after an answer that refused it and closes the connection."""
        length = self.headers.get("Content-Length", "")
        self.close_connection = True
        if not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "Content-Length: required, but missing")
            return None
        if int(length) > protocol.MAX_REPORT_BYTES:
            text = f"Content-Length: {length} is over {protocol.MAX_REPORT_BYTES} bytes"
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
            return None
        self.close_connection = False
        return self.rfile.read(int(length))

    def _answer_json(self, value: object) -> None:
        self._answer(HTTPStatus.OK, codec.to_json(value).encode(), "application/json")

    def _refuse(self, code: HTTPStatus, message: str) -> None:
        self._answer(code, (message + "\n").encode(), "text/plain; charset=utf-8")

    def _answer(self, code: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests come several times a second from each agent: not worth a line each."""
