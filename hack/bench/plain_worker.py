"""The peers' worker: ours, but SIGTERM ends it at once, as it does any plain torchtitan script.

Ours answers SIGTERM at the next step boundary, which a worker in a broken collective never reaches:
torchrun would wait 30 s for it before each restart. What it loses by this is the save before a pod
is deleted.
"""

import os
import runpy
import signal
import sys
from datetime import timedelta
from typing import Any

PATIENCE_VARIABLE = "BENCH_PATIENCE_SECONDS"  # of collectives, instead of torchtitan's 100

_set_handler = signal.signal


def _set_handler_but_for_sigterm(number: int, handler: Any) -> Any:
    if number == signal.SIGTERM:
        return signal.getsignal(number)
    return _set_handler(number, handler)


def _be_patient(seconds: int) -> None:
    from pretrain_llm.training import preload  # noqa: F401  it makes torchtitan fit the device

    # isort: split
    from torchtitan.distributed import utils

    set_timeouts = utils.set_pg_timeouts

    def set_patient_timeouts(timeout: timedelta, parallel_dims: Any) -> None:  # noqa: ARG001
        set_timeouts(timedelta(seconds=seconds), parallel_dims)

    utils.set_pg_timeouts = set_patient_timeouts


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules have common names
    signal.signal = _set_handler_but_for_sigterm  # type: ignore[assignment]
    if PATIENCE_VARIABLE in os.environ:
        _be_patient(int(os.environ[PATIENCE_VARIABLE]))
    runpy.run_module("pretrain_llm.training", run_name="__main__", alter_sys=True)
