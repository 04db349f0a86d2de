"""The commands, with a cluster that answers from a table."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from pretrain_operator.cli import commands
from pretrain_operator.cli.commands import UsageError
from pretrain_operator.cluster import ApiError, ObjectList

SERVED = {
    "metadata": {"name": "demo", "namespace": "llm"},
    "status": {"serving": {"url": "u", "model": "demo", "readyReplicas": 1}},
}


class Table:
    """Stands where `Cluster` does."""

    def __init__(
        self, run: Mapping[str, Any] | None, pods: tuple[dict[str, Any], ...] = ()
    ) -> None:
        self.run, self.pods = run, pods
        self.asked: list[tuple[str, str, str, Any]] = []

    async def get(self, _kind: str, _namespace: str, _name: str) -> Mapping[str, Any] | None:
        return self.run

    async def list(self, _kind: str, _namespace: str, *, label_selector: str) -> ObjectList:
        self.selector = label_selector
        return ObjectList(self.pods, "1")

    async def through_service(
        self, namespace: str, service: str, path: str, body: Mapping[str, Any]
    ) -> dict[str, Any]:
        self.asked.append((namespace, service, path, body))
        return {"choices": [{"message": {"content": f"answer {len(self.asked)}"}}]}

    async def log_lines(self, _namespace: str, pod: str, **_: Any) -> AsyncIterator[str]:
        if pod == "mute":
            raise ApiError(502, "BadGateway", "node does not answer")
        yield f"line of {pod}"


def options(**fields: Any) -> argparse.Namespace:
    defaults = {"run": "demo", "namespace": "llm", "max_tokens": 64, "question": None}
    return argparse.Namespace(**{**defaults, "stage": None, "follow": False, "tail": 5, **fields})


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase},
    }


def call(command: Any, table: Table, **fields: Any) -> int:
    result: int = asyncio.run(command(table, options(**fields)))
    return result


def test_chat_asks_the_served_model_by_the_runs_name(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(SERVED)
    assert call(commands.chat, table, question="What is a tuple?") == 0
    ((namespace, service, path, body),) = table.asked
    assert (namespace, service, path) == ("llm", "demo-serve:8000", "/v1/chat/completions")
    assert body["model"] == "demo"
    assert body["messages"] == [{"role": "user", "content": "What is a tuple?"}]
    assert capsys.readouterr().out == "answer 1\n"


def test_chat_without_a_question_is_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["one", "  ", "two"])

    def answer(_: str) -> str:
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", answer)
    table = Table(SERVED)
    call(commands.chat, table)
    roles = [message["role"] for message in table.asked[-1][3]["messages"]]
    assert len(table.asked) == 2
    assert roles == ["user", "assistant", "user"]


@pytest.mark.parametrize("status", [{}, {"serving": {"url": "u", "readyReplicas": 0}}])
def test_chat_with_a_run_that_does_not_serve_says_what_to_look_at(status: Any) -> None:
    with pytest.raises(UsageError, match="pretrain status demo"):
        call(commands.chat, Table({**SERVED, "status": status}), question="?")


def test_run_that_is_not_there_says_how_to_list_them() -> None:
    with pytest.raises(UsageError, match="kubectl get pretrainruns"):
        call(commands.logs, Table(None))


def test_logs_of_several_pods_begin_with_the_pod(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(SERVED, (pod("a"), pod("b"), pod("c", "Pending")))
    assert call(commands.logs, table, stage="training") == 0
    assert table.selector == "pretrain.dev/run=demo,pretrain.dev/component=training"
    assert sorted(capsys.readouterr().out.splitlines()) == ["[a] line of a", "[b] line of b"]


def test_logs_of_a_pod_that_cannot_be_read_do_not_hide_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(commands.logs, Table(SERVED, (pod("a"), pod("mute"))))
    captured = capsys.readouterr()
    assert "line of a" in captured.out
    assert "log of mute: node does not answer" in captured.err


def test_logs_without_started_pods_say_so() -> None:
    with pytest.raises(UsageError, match="no started pods of stage data"):
        call(commands.logs, Table(SERVED, (pod("a", "Pending"),)), stage="data")
