"""What an incident's cause says in words."""

from __future__ import annotations

import pytest

from pretrain_llm.contract.reports import FaultReport
from pretrain_operator import evidence


@pytest.mark.parametrize(
    ("error", "stderr", "words"),
    [
        ("boom.", ("Xid 79",), "boom.; stderr: Xid 79"),
        (None, ("Xid 79", "Xid 94"), "Xid 79 | Xid 94"),
        ("CUDA error: x.", ("CUDA error: x", "RuntimeError: CUDA error: x"), "CUDA error: x."),
        ("boom.", (), "boom."),
    ],
)
def test_cause_has_the_programs_error_and_what_stderr_says_beyond_it(error, stderr, words):
    fault = FaultReport(1, 0, 1.0, exit_code=1, error_message=error, stderr=stderr)
    assert evidence.own_words(fault) == words
