"""A verdict always fits into what Kubernetes keeps of a termination message, and is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain_llm import stage
from pretrain_llm.agent import __main__ as agent
from pretrain_llm.contract import codec, environment, exit_codes
from pretrain_llm.contract.config import RunConfig
from pretrain_llm.contract.results import (
    MAX_MESSAGE_BYTES,
    StageError,
    StageResult,
    TerminationMessage,
)
from pretrain_llm.errors import InputError
from pretrain_llm.termination import encoded, fitted_error, fitted_result

from .runs import run_config, write_config

PATHS = ", ".join(
    f"/workspace/corpus/a-folder-with-quite-a-long-name/of-texts/{n:04}.jsonl" for n in range(64)
)
LONG = {
    "64 long paths": InputError("bad", field="spec.data", value=PATHS, remedy="Mend them."),
    "900 Chinese characters": InputError(
        "錯" * 900, field="spec.data", value="值" * 900, remedy="Mend them."
    ),
    "all of it": InputError("m" * 9000, field="f" * 9000, value="v" * 9000, remedy="r" * 9000),
    "control characters": InputError("\x1b" * 900, field="spec.data", value="\0" * 900, remedy="?"),
}


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "termination-log"
    monkeypatch.setenv(environment.TERMINATION_LOG, str(path))
    monkeypatch.setenv(
        environment.CONFIG, str(write_config(run_config(tmp_path), tmp_path / "run.json"))
    )
    return path


def left_error(log: Path) -> StageError:
    text = log.read_bytes()
    assert len(text) <= MAX_MESSAGE_BYTES
    error = codec.from_json(TerminationMessage, text).error
    assert error is not None
    return error


@pytest.mark.parametrize("error", LONG.values(), ids=LONG)
def test_stage_long_bad_input_keeps_its_verdict(error: InputError, log: Path) -> None:
    def work(_: RunConfig) -> StageResult:
        raise error

    assert stage.run(work) == exit_codes.BAD_INPUT
    told, whole = left_error(log), error.as_stage_error()
    assert told.exit_code == exit_codes.BAD_INPUT
    assert told.message.startswith(whole.message[:100])
    assert (told.field or "").startswith("spec.data" if whole.field == "spec.data" else "fff")
    assert log.stat().st_size > MAX_MESSAGE_BYTES * 0.9, "no more is cut than must be"


def test_agent_long_bad_input_keeps_its_verdict(log: Path) -> None:
    whole = LONG["64 long paths"].as_stage_error()
    assert agent._gave_up(whole) == exit_codes.BAD_INPUT
    told = left_error(log)
    assert (told.field, told.message, told.remedy) == (whole.field, whole.message, whole.remedy)
    assert told.value
    assert told.value.startswith(PATHS[:2000])
    assert told.value.endswith("…")


def test_error_that_fits_stays_as_it_is() -> None:
    error = StageError("錯" * 1000, "InputError", 64, field="spec.data", value="v")
    assert fitted_error(error) == error


def test_error_with_a_path_that_is_not_utf8_is_written() -> None:
    error = StageError("\udcff.jsonl is not there", "InputError", 64)
    text = encoded(TerminationMessage(error=error))
    assert codec.from_json(TerminationMessage, text).error == error


def test_result_with_too_many_metrics_keeps_the_first_and_its_path() -> None:
    metrics = {f"metric{number:04}": float(number) for number in range(500)}
    result = StageResult("Export", "/workspace/run/export/step-8", "d" * 64, metrics=metrics)
    told = fitted_result(result)
    assert len(encoded(TerminationMessage(result=told))) <= MAX_MESSAGE_BYTES
    assert (told.path, told.digest) == (result.path, result.digest)
    assert list(told.metrics.items()) == list(metrics.items())[: len(told.metrics)]
    assert len(told.metrics) > 100


def test_result_whose_path_alone_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="path: "):
        fitted_result(StageResult("Export", "p" * MAX_MESSAGE_BYTES, "digest"))
