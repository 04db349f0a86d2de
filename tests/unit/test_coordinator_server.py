"""The coordinator's HTTP, over a real socket: good and bad requests, held views, metrics."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator

import pytest

from pretrain_llm.contract import codec, protocol
from pretrain_llm.contract.protocol import AgentReport, RoundView
from pretrain_llm.contract.status import StatusDocument
from pretrain_llm.coordinator import ledger
from pretrain_llm.coordinator.rounds import Policy
from pretrain_llm.coordinator.server import Coordinator, Server

REPORT = AgentReport("a", "a-1", 3, 0, "node", protocol.WAITING, time.time())


class Stores:
    """Counts the stores that were opened."""

    def __init__(self) -> None:
        self.opened = 0

    def renew(self) -> None:
        self.opened += 1


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def port(stores: Stores) -> Iterator[int]:
    identity = ledger.Identity("run", attempt=3, total_steps=10, coordinator="one")
    opened = ledger.opened(identity, Policy(nodes=1, spares=0), time.time())
    with Server(0, Coordinator(opened, stores.renew)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def asked(
    port: int, method: str, path: str, body: str | bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, text


def reported(port: int, report: AgentReport) -> RoundView:
    code, text = asked(port, "POST", protocol.REPORT_PATH, codec.to_json(report))
    assert code == 200
    return codec.from_json(RoundView, text)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "message"),
    [
        ("GET", "/nothing", None, {}, 404, "path: '/nothing' is not served"),
        ("POST", "/nothing", "{}", {}, 404, "path: '/nothing' is not served"),
        ("POST", "/agents/report", "{", {}, 400, "not JSON"),
        ("POST", "/agents/report", "[]", {}, 400, "expected an object"),
        ("POST", "/agents/report", "{}", {}, 400, "agent: required, but missing"),
        ("POST", "/agents/report", None, {"Content-Length": "-1"}, 411, "Content-Length"),
        ("POST", "/agents/report", None, {"Content-Length": "9999999"}, 413, "is over 1048576"),
        ("GET", "/agents/view?known=x", None, {}, 400, "known: expected a number, found 'x'"),
    ],
)
def test_bad_request_is_refused_with_a_reason(
    port: int,
    method: str,
    path: str,
    body: str | None,
    headers: dict[str, str],
    code: int,
    message: str,
) -> None:
    found, text = asked(port, method, path, body, **headers)
    assert (found, message in text.decode()) == (code, True), text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("state", "Asleep", "state: 'Asleep' is none of Preparing"),
        ("slot", -1, "must not be negative"),
        ("agent", "", "must not be empty"),
        ("events", [{}] * 501, "events: 501 in one report, over 500"),
    ],
)
def test_bad_report_names_the_field(port: int, field: str, value: object, message: str) -> None:
    document = {**codec.encode(REPORT), field: value}
    code, text = asked(port, "POST", protocol.REPORT_PATH, json.dumps(document))
    assert (code, message in text.decode()) == (400, True), text


def test_report_of_another_attempt_is_refused(port: int) -> None:
    document = {**codec.encode(REPORT), "attempt": 2}
    code, text = asked(port, "POST", protocol.REPORT_PATH, json.dumps(document))
    assert (code, text) == (409, b"attempt: 2 reports to the coordinator of 3\n")


def test_round_named_opens_a_store_first(port: int, stores: Stores) -> None:
    view = reported(port, REPORT)
    assert (view.round, view.members, view.broken) == (1, ("a",), False)
    assert stores.opened == 1


def test_view_is_held_until_the_round_changes(port: int) -> None:
    known = codec.from_json(RoundView, asked(port, "GET", f"{protocol.VIEW_PATH}?known=-1")[1])
    heard: list[RoundView] = []

    def watch() -> None:
        text = asked(port, "GET", f"{protocol.VIEW_PATH}?known={known.revision}")[1]
        heard.append(codec.from_json(RoundView, text))

    watching = threading.Thread(target=watch)
    watching.start()
    reported(port, REPORT)
    watching.join(5)
    assert [view.round for view in heard] == [1]


def test_status_and_metrics_are_served(port: int) -> None:
    reported(port, REPORT)
    told = codec.from_json(StatusDocument, asked(port, "GET", "/status")[1])
    assert (told.run, told.attempt, told.round, told.agents[0].rank) == ("run", 3, 1, 0)
    text = asked(port, "GET", "/metrics")[1].decode()
    assert 'pretrain_run_agents{attempt="3",run="run",state="Waiting"} 1.0' in text
    assert asked(port, "GET", "/healthz") == (200, b"ok\n")
