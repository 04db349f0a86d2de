"""`python -m pretrain_llm.post_train`: the entry of postTraining that PRETRAIN_STAGE_NAME names."""

import os
import tempfile

# Before any import that reads them: nothing is fetched, and the root file system is read-only.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HOME", os.path.join(tempfile.gettempdir(), "huggingface"))

from ..stage import main
from .stage import post_train

main(post_train)
