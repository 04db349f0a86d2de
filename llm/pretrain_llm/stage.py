"""Frame of every stage that ends: read the configuration, do the work, leave a termination message.

A stage is idempotent: its folder's manifest, written last, names the digest of its inputs; where it
matches, the stage returns what is there.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from .contract import codec, config, environment, exit_codes
from .contract.results import StageResult, TerminationMessage
from .errors import stage_error
from .termination import leave_message


def run(work: Callable[[config.RunConfig], StageResult]) -> int:
    """Runs one stage to its end; returns the exit code."""
    started = time.time()
    try:
        result = work(config.load(os.environ.get(environment.CONFIG, environment.CONFIG_PATH)))
    except Exception as error:
        traceback.print_exc()
        failure = stage_error(error)
        leave_message(TerminationMessage(error=failure))
        return failure.exit_code
    if not result.seconds:
        result = replace(result, seconds=round(time.time() - started, 3))
    leave_message(TerminationMessage(result=result))
    print(codec.to_json(result), flush=True)
    return exit_codes.OK


def main(work: Callable[[config.RunConfig], StageResult]) -> None:
    sys.exit(run(work))
