"""python -m pretrain_llm.export"""

from __future__ import annotations

from .. import stage
from .work import export

if __name__ == "__main__":
    stage.main(export)
