"""`python -m pretrain_llm.data`: the Data stage of the run that PRETRAIN_CONFIG describes."""

from ..stage import main
from .build import build

if __name__ == "__main__":  # the tokenising workers import this module again
    main(build)
