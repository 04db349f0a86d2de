"""From a checkpoint to a Hugging Face folder that says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pretrain_llm import artifacts, tokenizer
from pretrain_llm.checkpoints.folders import REASON
from pretrain_llm.contract import exit_codes
from pretrain_llm.contract.config import ARCHITECTURES, RunConfig
from pretrain_llm.contract.layout import MANIFEST
from pretrain_llm.errors import InputError
from pretrain_llm.export.folder import special_token_ids
from pretrain_llm.export.heldout import windows
from pretrain_llm.export.parity import ExportedModel, ParityError, check_logits
from pretrain_llm.export.trained import TrainedModel
from pretrain_llm.export.work import export
from pretrain_llm.training.inputs import open_inputs

from .runs import changed, family_model, mesh, run_config, write_data
from .worlds import trained

pytestmark = [
    pytest.mark.usefixtures("warm_workers"),
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning"),
]


def _run(volume: Path) -> RunConfig:
    return run_config(
        volume,
        parallelism=mesh(shard=2),
        training={"steps": 6, "local_batch_size": 2},
        checkpoint={"interval": 3, "keep_latest": 2},
    )


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the checkpoints 3 and 6, saved by two ranks."""
    volume = tmp_path_factory.mktemp("pristine")
    write_data(_run(volume).layout)
    trained(_run(volume), ranks=2)
    return volume


@pytest.fixture
def run(pristine: Path, tmp_path: Path) -> RunConfig:
    return _run(Path(shutil.copytree(pristine, tmp_path / "volume")))


def test_export_float32_loads_in_transformers_and_says_the_same(run: RunConfig) -> None:
    result = export(run)
    folder = Path(result.path)
    assert (result.stage, result.step, folder) == ("Export", 6, Path(run.layout.export(6)))
    assert result.metrics["stepsMissing"] == 0
    assert 0 < result.metrics["logitsMaxAbsDiff"] < 1e-5
    assert 1 < result.metrics["bitsPerByteHeldOut"] < 8.5  # untrained: 8.4
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert sum(p.numel() for p in model.parameters()) == result.metrics["parameters"]
    assert model.generation_config.eos_token_id == [0, 2]
    chat = [{"role": "user", "content": "w7"}]
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(chat, tokenize=False)
    assert prompt == "<|im_start|>user\nw7<|im_end|>\n"


@pytest.mark.parametrize("family", [name for name in ARCHITECTURES if name != "llama"])
def test_export_of_every_family_says_the_same(family: str, tmp_path: Path) -> None:
    model = family_model(family, num_layers=4, tie_embeddings=False)
    run = run_config(tmp_path, model=model, training={"steps": 3})
    write_data(run.layout)
    trained(run)
    result = export(run)
    assert result.metrics["logitsMaxAbsDiff"] < 1e-5
    config = json.loads((Path(result.path) / "config.json").read_text())
    assert config["architectures"] == [
        type(AutoModelForCausalLM.from_pretrained(result.path)).__name__
    ]


def test_export_manifest_verifies_and_names_checkpoint_and_tokenizer(run: RunConfig) -> None:
    result = export(run)
    manifest = artifacts.verified_manifest(Path(result.path), field="test")
    assert manifest.step == 6
    assert manifest.metrics == result.metrics
    assert manifest.tokenizer_fingerprint == tokenizer.fingerprint(Path(result.path))
    assert result.digest == artifacts.artifact_digest(manifest)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in Path(result.path).iterdir())


def test_export_bfloat16_is_compared_before_rounding(run: RunConfig) -> None:
    result = export(changed(run, export={"dtype": "bfloat16"}))
    assert result.metrics["logitsMaxAbsDiff"] < 1e-5
    assert AutoModelForCausalLM.from_pretrained(result.path).dtype == torch.bfloat16
    assert json.loads((Path(result.path) / "config.json").read_text())["dtype"] == "bfloat16"


def test_export_finished_before_is_not_made_again(run: RunConfig) -> None:
    first = export(run)
    written = (Path(first.path) / "model.safetensors").stat().st_mtime_ns
    again = export(run)
    assert again == first
    assert (Path(first.path) / "model.safetensors").stat().st_mtime_ns == written


def test_export_killed_before_its_manifest_is_made_anew(run: RunConfig) -> None:
    first = export(run)
    (Path(first.path) / MANIFEST).unlink()
    (Path(first.path) / "model-00002-of-00002.safetensors").write_text("half a file")
    assert export(run).digest == first.digest


def test_export_of_another_dtype_replaces_the_first(run: RunConfig) -> None:
    first = export(run)
    second = export(changed(run, export={"dtype": "float16"}))
    assert second.path == first.path
    assert second.digest != first.digest


def test_export_with_the_newest_checkpoint_damaged_takes_the_one_before(run: RunConfig) -> None:
    (Path(run.layout.checkpoint(6)) / "__1_0.distcp").write_bytes(b"")
    result = export(run)
    assert (result.step, result.path) == (3, str(run.layout.export(3)))
    assert result.metrics["stepsMissing"] == 3
    (quarantined,) = Path(run.layout.quarantine).iterdir()
    assert quarantined.name == "step-6-1"
    assert "__1_0.distcp has 0 bytes" in (quarantined / REASON).read_text()
    assert export(run) == result, "a second time says the same"


def test_export_with_every_manifest_damaged_is_refused(run: RunConfig) -> None:
    for step in (3, 6):
        (Path(run.layout.checkpoint(step)) / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="no verified checkpoint"):
        export(run)
    assert len(list(Path(run.layout.quarantine).iterdir())) == 2


def test_export_without_a_checkpoint_is_refused(run: RunConfig) -> None:
    shutil.rmtree(run.layout.checkpoints)
    with pytest.raises(InputError, match=r"no verified checkpoint.*Let training finish") as caught:
        export(run)
    assert caught.value.field == "spec.checkpoint"


def test_export_of_another_models_checkpoints_is_refused(run: RunConfig) -> None:
    with pytest.raises(InputError, match="checkpoints of another model"):
        export(changed(run, model={"rope_theta": 500000.0}))


def test_export_of_other_weights_is_noticed(run: RunConfig) -> None:
    folder = Path(export(run).path)
    inputs = open_inputs(run)
    sample = next(windows(inputs.folder, inputs.index, run.training.sequence_length))
    shares = {Path(run.layout.checkpoint(6)): 1.0}
    model = TrainedModel(run.model, run.training.sequence_length, shares)
    exported = ExportedModel(folder)
    logits = model.logits(sample.inputs, sample.positions)
    assert check_logits(logits, exported, sample) < 1e-5

    weights = model.weights()
    name = "model.layers.1.self_attn.q_proj.weight"
    weights[name] = weights[name].clone()
    weights[name][0, 0] += 0.5
    with pytest.raises(ParityError, match=name):
        exported.check_weights(weights, "float32")
    exported.use_weights(weights)
    with pytest.raises(ParityError, match="logits differ") as caught:
        check_logits(logits, exported, sample)
    assert caught.value.exit_code in exit_codes.FINAL


def test_export_with_another_config_is_noticed(run: RunConfig) -> None:
    exported = ExportedModel(Path(export(run).path))
    exported.check_shapes(run.model)
    with pytest.raises(ParityError, match="norm_eps=1e-06"):
        exported.check_shapes(changed(run, model={"norm_eps": 1e-6}).model)


def test_special_tokens_of_a_tokenizer_without_chat_end_with_the_text(run: RunConfig) -> None:
    inputs = open_inputs(run)
    path = inputs.tokenizer / tokenizer.TOKENIZER
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens": []}))
    ids = special_token_ids(inputs.tokenizer, inputs.index)
    assert ids == {"bos_token_id": 0, "eos_token_id": [0], "pad_token_id": 0}
