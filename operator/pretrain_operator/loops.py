"""One serialised loop per run: a run's passes never overlap, different runs' do.

A wake-up during a pass means one more pass afterwards, however many there were. A pass that fails
is tried again after a growing time. Knows nothing of Kubernetes or of what a pass does.

    wake -> [debounce] -> pass -> sleep until woken or until the pass's own time is up
                           | failed
                           `-> sleep 1, 2, 4 ... 60 s, woken or not
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

DEBOUNCE_SECONDS = 0.1  # events come in bursts: a Job and its pods
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
LONGEST_SLEEP_SECONDS = 60.0  # a quiet run is looked at all the same; a pass that plans nothing
# makes no API call, and its end is the sign of life that the liveness probe asks for


class GoneError(Exception):
    """Raised by a pass: there is nothing left to do for this key, ever."""


class Loops(Generic[Key]):
    """Runs `step(key)` for every woken key. It returns seconds until its next turn, or None.

    `says_all`: of a failed pass's error, whether it is understood without a traceback.
    """

    def __init__(
        self,
        step: Callable[[Key], Awaitable[float | None]],
        says_all: Callable[[Exception], bool] = lambda _error: False,
    ) -> None:
        self._step = step
        self._says_all = says_all
        self._woken: dict[Key, asyncio.Event] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._passed_at: dict[Key, float] = {}

    def wake(self, key: Key) -> None:
        """Starts the key's loop if there is none."""
        if key not in self._tasks:
            self._woken[key] = asyncio.Event()
            self._passed_at[key] = asyncio.get_running_loop().time()
            self._tasks[key] = asyncio.create_task(self._run(key), name=f"loop {key}")
        self._woken[key].set()

    def oldest_pass_seconds(self) -> float:
        """How long ago the longest silent loop finished its last pass; 0 without loops."""
        now = asyncio.get_running_loop().time()
        return now - min(self._passed_at.values(), default=now)

    def __len__(self) -> int:
        return len(self._tasks)

    async def stop(self) -> None:
        """Cancels all loops and waits for them; a pass may end at any of its awaits."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: Key) -> None:
        failures = 0
        try:
            while True:
                await asyncio.sleep(DEBOUNCE_SECONDS)
                self._woken[key].clear()
                try:
                    delay = await self._step(key)
                except GoneError:
                    if self._woken[key].is_set():
                        continue  # somebody made it anew meanwhile
                    return
                except Exception as error:
                    failures += 1
                    delay = retry_seconds(failures)
                    told = "pass of %s failed, next in %.0f s: %s"
                    logger.error(told, key, delay, error, exc_info=not self._says_all(error))
                    self._passed_at[key] = asyncio.get_running_loop().time()
                    await asyncio.sleep(delay)
                    continue
                failures = 0
                self._passed_at[key] = asyncio.get_running_loop().time()
                await self._sleep(key, delay)
        finally:
            del self._tasks[key], self._woken[key], self._passed_at[key]

    async def _sleep(self, key: Key, delay: float | None) -> None:
        longest = LONGEST_SLEEP_SECONDS if delay is None else min(delay, LONGEST_SLEEP_SECONDS)
        try:
            async with asyncio.timeout(longest):
                await self._woken[key].wait()
        except TimeoutError:
            pass


def retry_seconds(failures: int) -> float:
    """1, 2, 4 ... 60: the wait after so many failures in a row."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), LAST_RETRY_SECONDS)
