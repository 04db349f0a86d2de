"""One serialised loop per key, woken by events, its own time, and after failures."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pretrain_operator import loops
from pretrain_operator.loops import GoneError, Loops, retry_seconds


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "DEBOUNCE_SECONDS", 0.0)
    monkeypatch.setattr(loops, "FIRST_RETRY_SECONDS", 0.001)


def in_event_loop(
    scenario: Callable[..., Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    @functools.wraps(scenario)
    def test(*arguments: Any, **named: Any) -> None:
        asyncio.run(scenario(*arguments, **named))

    return test


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0)


@in_event_loop
async def test_loop_woken_during_a_pass_runs_once_more_however_often() -> None:
    began = asyncio.Event()
    go_on = asyncio.Event()
    passes: list[str] = []

    async def step(key: str) -> float | None:
        passes.append(key)
        began.set()
        await go_on.wait()
        return None

    running = Loops(step)
    running.wake("demo")
    await began.wait()
    for _ in range(5):
        running.wake("demo")
    assert passes == ["demo"]  # passes of one key never overlap
    go_on.set()
    await until(lambda: len(passes) == 2)
    await asyncio.sleep(0.01)  # nothing more may come: there is no event to wait for
    assert len(passes) == 2
    await running.stop()


@in_event_loop
async def test_passes_of_two_keys_overlap() -> None:
    both = asyncio.Barrier(2)

    async def step(_: str) -> float | None:
        await both.wait()
        return None

    running = Loops(step)
    running.wake("a")
    running.wake("b")
    await until(lambda: both.n_waiting == 0 and running.oldest_pass_seconds() < 1)
    assert len(running) == 2
    await running.stop()


@in_event_loop
async def test_pass_that_asks_for_a_turn_gets_it_without_a_wake_up() -> None:
    passes: list[str] = []

    async def step(key: str) -> float | None:
        passes.append(key)
        return 0.001

    running = Loops(step)
    running.wake("demo")
    await until(lambda: len(passes) >= 3)
    await running.stop()


@pytest.mark.parametrize(
    ("error", "is_traced"), [(RuntimeError("a bug"), True), (TimeoutError("no answer"), False)]
)
@in_event_loop
async def test_failed_pass_is_tried_again_and_other_keys_go_on(
    error: Exception, is_traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    passes: list[str] = []

    async def step(key: str) -> float | None:
        passes.append(key)
        if key == "bad" and passes.count("bad") < 3:
            raise error
        return None

    running = Loops(step, lambda failed: isinstance(failed, TimeoutError))
    running.wake("bad")
    running.wake("good")
    await until(lambda: passes.count("bad") == 3 and "good" in passes)
    assert f"pass of bad failed, next in 0 s: {error}" in caplog.text
    assert ("Traceback" in caplog.text) is is_traced
    await running.stop()


@in_event_loop
async def test_loop_of_a_key_that_is_gone_ends_and_can_begin_anew() -> None:
    passes: list[str] = []

    async def step(key: str) -> float | None:
        passes.append(key)
        raise GoneError(key)

    running = Loops(step)
    running.wake("demo")
    await until(lambda: len(running) == 0)
    running.wake("demo")
    await until(lambda: len(passes) == 2 and len(running) == 0)


@in_event_loop
async def test_oldest_pass_of_a_loop_that_hangs_grows() -> None:
    began = asyncio.Event()

    async def step(_: str) -> float | None:
        began.set()
        await asyncio.Event().wait()
        return None

    running = Loops(step)
    assert running.oldest_pass_seconds() == 0
    running.wake("demo")
    await began.wait()
    await until(lambda: running.oldest_pass_seconds() > 0.002)
    await running.stop()
    assert running.oldest_pass_seconds() == 0


def test_retry_seconds_double_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "FIRST_RETRY_SECONDS", 1.0)
    assert [retry_seconds(failures) for failures in (1, 2, 3, 6, 7, 500)] == [1, 2, 4, 32, 60, 60]
