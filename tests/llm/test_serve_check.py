"""The check before the server: a folder that would not serve is told with its reason."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain_llm import artifacts, serve_check, tokenizer
from pretrain_llm.contract import codec, environment, exit_codes
from pretrain_llm.contract.manifests import ArtifactManifest
from pretrain_llm.contract.results import StageError, TerminationMessage

from . import runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    layout = runs.run_config(tmp_path).layout
    runs.write_data(layout)
    folder = Path(layout.tokenizer)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(b"weights")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, fingerprint: str | None = None) -> None:
    mark = fingerprint or tokenizer.fingerprint(folder)
    manifest = ArtifactManifest("PostTraining", "inputs", mark, artifacts.entries(folder))
    artifacts.write_manifest(folder, manifest)


def failure(folder: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> StageError:
    """Why the check fails, from the termination message it leaves."""
    monkeypatch.setenv(environment.TERMINATION_LOG, str(log))
    assert serve_check.main([str(folder)]) == exit_codes.BAD_INPUT
    message = codec.from_json(TerminationMessage, log.read_bytes())
    assert message.error is not None
    return message.error


def test_main_whole_folder_ends_well(folder: Path) -> None:
    assert serve_check.main([str(folder)]) == exit_codes.OK


def test_main_template_in_its_own_file_ends_well(folder: Path) -> None:
    (folder / tokenizer.TOKENIZER_CONFIG).write_text("{}")
    (folder / tokenizer.CHAT_TEMPLATE_FILE).write_text(tokenizer.CHAT_TEMPLATE)
    write_manifest(folder)
    assert serve_check.main([str(folder)]) == exit_codes.OK


def unfinish(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def truncate_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weigh")


def flip_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weighty")


def mistake_tokenizer(folder: Path) -> None:
    write_manifest(folder, "0" * 64)


def lose_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    write_manifest(folder)


def empty_config(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    write_manifest(folder)


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")
    write_manifest(folder)


def lose_template(folder: Path) -> None:
    settings = json.loads((folder / tokenizer.TOKENIZER_CONFIG).read_text())
    del settings["chat_template"]
    (folder / tokenizer.TOKENIZER_CONFIG).write_text(json.dumps(settings))
    write_manifest(folder)


@pytest.mark.parametrize(
    ("damage", "field", "message"),
    [
        (unfinish, "spec.serving", "no finished artifact there"),
        (truncate_weights, "spec.serving", "model.safetensors has 5 bytes instead of 7"),
        (flip_weights, "spec.serving", "model.safetensors has another checksum"),
        (mistake_tokenizer, "spec.tokenizer", "is not 000000000000"),
        (lose_config, "spec.serving", "config.json cannot be read"),
        (empty_config, "spec.serving", "config.json names no architecture"),
        (break_config, "spec.serving", "config.json is not an object"),
        (lose_template, "spec.tokenizer", "no chat template"),
    ],
)
def test_main_unfit_folder_says_why(
    damage: Callable[[Path], None],
    field: str,
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage(folder)
    error = failure(folder, tmp_path / "log", monkeypatch)
    assert message in error.message
    assert (error.field, error.exit_code) == (field, exit_codes.BAD_INPUT)
    assert error.value
    assert error.remedy


def test_main_damaged_manifest_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "manifest.json").write_text("{")
    error = failure(folder, tmp_path / "log", monkeypatch)
    assert "manifest.json is damaged: not JSON" in error.message


def test_main_without_folder_prints_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert serve_check.main([]) == exit_codes.BAD_INPUT
    assert "usage" in capsys.readouterr().err


def test_module_isolated_interpreter_needs_no_package(folder: Path) -> None:
    """The serving image has none of ours: -I -S leaves the standard library and the source tree."""
    code = (
        "import runpy, sys; sys.path.insert(0, 'llm'); "
        f"sys.argv = ['serve_check', {str(folder)!r}]; "
        "runpy.run_module('pretrain_llm.serve_check', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (exit_codes.OK, b"")
