"""`python -m pretrain_operator.cli`, where the `pretrain` command is not installed."""

import sys

from .commands import main

if __name__ == "__main__":
    sys.exit(main())
