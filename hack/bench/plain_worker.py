"""The peers' worker: ours, but SIGTERM ends it at once, as it does any plain torchtitan script.

Ours answers SIGTERM at the next step boundary, which a worker in a broken collective never reaches:
torchrun would wait 30 s for it before each restart. What it loses by this is the save before a pod
is deleted.
"""

import runpy
import signal
import sys
from typing import Any

_set_handler = signal.signal


def _set_handler_but_for_sigterm(number: int, handler: Any) -> Any:
    if number == signal.SIGTERM:
        return signal.getsignal(number)
    return _set_handler(number, handler)


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules have common names
    signal.signal = _set_handler_but_for_sigterm  # type: ignore[assignment]
    runpy.run_module("pretrain_llm.training", run_name="__main__", alter_sys=True)
