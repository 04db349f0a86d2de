"""By hand, without agents: torchrun --nproc-per-node=2 -m pretrain_llm.training"""

from __future__ import annotations

import os
import sys
import traceback

from .. import reports
from ..errors import stage_error
from . import worker


def _exit_code() -> int:
    try:
        worker.main()
    except SystemExit as left:
        return int(left.code or 0)
    except BaseException as error:
        traceback.print_exc()
        return stage_error(error).exit_code
    return 0


if __name__ == "__main__":
    code = _exit_code()
    reports.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no waiting for threads that wait for peers which are gone
