"""The PostTraining stage on a tiny random model: what goes in is checked, what comes out serves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pretrain_llm import artifacts, serve_check, tokenizer
from pretrain_llm.contract import environment
from pretrain_llm.contract.config import (
    DataConfig,
    PostTrainingConfig,
    RunConfig,
    SourceConfig,
    TokenizerConfig,
)
from pretrain_llm.contract.layout import MANIFEST
from pretrain_llm.contract.manifests import ArtifactManifest
from pretrain_llm.data.build import build
from pretrain_llm.data.index import CHAT
from pretrain_llm.errors import InputError
from pretrain_llm.post_train import stage

from . import runs

VOCAB_SIZE = 320
SFT = PostTrainingConfig(
    name="sft", method="SFT", steps=12, batch_size=4, learning_rate=1e-2, max_length=64
)


def make_run(volume: Path) -> RunConfig:
    """A run whose Data and Export stages have finished; the model is random."""
    words = ("apple", "pear", "plum")
    lines = [f"The {w} number {n} costs {n} and is good." for n in range(8) for w in words]
    (volume / "corpus.jsonl").write_text("".join(json.dumps({"text": x}) + "\n" for x in lines))
    run = runs.run_config(
        volume,
        model={"vocab_size": VOCAB_SIZE},
        tokenizer=TokenizerConfig(train_vocab_size=VOCAB_SIZE),
        data=DataConfig((SourceConfig("corpus", "corpus.jsonl", "jsonl", "text"),), 0.1),
        post_training=(SFT, replace(SFT, name="second", steps=1)),
    )
    build(run)
    write_export(run)
    return run


def write_export(run: RunConfig) -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB_SIZE,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=0,
        )
    )
    folder = Path(run.layout.export(run.training.steps))
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in (tokenizer.TOKENIZER, tokenizer.TOKENIZER_CONFIG):
        shutil.copy(run.layout.tokenizer / name, folder)
    write_manifest(folder, run.training.steps)


def write_manifest(folder: Path, step: int = 8) -> None:
    mark = tokenizer.fingerprint(folder)
    files = artifacts.entries(folder)
    artifacts.write_manifest(folder, ArtifactManifest("Export", "inputs", mark, files, step))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return make_run(tmp_path_factory.mktemp("source"))


@pytest.fixture
def run(source: RunConfig, tmp_path: Path) -> RunConfig:
    """A copy that a test may damage."""
    shutil.copytree(source.volume, tmp_path, dirs_exist_ok=True)
    return replace(source, volume=str(tmp_path))


@pytest.fixture(autouse=True)
def first_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.STAGE_NAME, "sft")
    monkeypatch.delenv(environment.INPUT, raising=False)


def test_post_train_sft_learns_and_leaves_a_servable_folder(run: RunConfig) -> None:
    result = stage.post_train(run)
    folder = Path(run.layout.post_training("sft"))
    assert (result.stage, result.name, result.path, result.step) == (
        "PostTraining",
        "sft",
        str(folder),
        8,
    )
    assert result.metrics["lossLast"] < 0.9 * result.metrics["lossFirst"]
    given = artifacts.read_manifest(Path(run.layout.export(8)))
    assert given is not None
    assert result.source_digests == (artifacts.artifact_digest(given),)
    serve_check.check_folder(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    loaded = AutoTokenizer.from_pretrained(str(folder))
    assert model.dtype == torch.bfloat16  # as it came
    assert loaded.chat_template == tokenizer.CHAT_TEMPLATE
    stops = [loaded.convert_tokens_to_ids(t) for t in (tokenizer.END_OF_TEXT, tokenizer.TURN_END)]
    assert model.generation_config.eos_token_id == stops
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


def test_post_train_again_does_no_work(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[stage.Job] = []

    def train(job: stage.Job) -> dict[str, float]:
        trained.append(job)
        (job.output / "config.json").write_text("{}")
        return {"examples": len(job.conversations)}

    monkeypatch.setattr(stage, "method", lambda name, field: train)
    once, again = stage.post_train(run), stage.post_train(run)
    assert once == again
    assert len(trained) == 1
    changed = replace(run, post_training=(replace(SFT, steps=13),))
    assert stage.post_train(changed).digest == once.digest
    assert len(trained) == 2


def test_post_train_second_entry_starts_from_the_first(run: RunConfig) -> None:
    second = run.post_training[1]
    assert stage.source_folder(run, second, None) == Path(run.layout.post_training("sft"))
    assert stage.source_folder(run, SFT, None) == Path(run.layout.export(8))
    assert stage.source_folder(run, second, "/elsewhere") == Path("/elsewhere")


def test_training_template_marks_what_the_assistant_says(source: RunConfig) -> None:
    loaded = AutoTokenizer.from_pretrained(str(source.layout.tokenizer))
    turns = [
        {"role": "user", "content": "The apple?"},
        {"role": "assistant", "content": "It costs 3."},
        {"role": "user", "content": "And the pear?"},
        {"role": "assistant", "content": "4."},
    ]
    served = loaded.apply_chat_template(turns)["input_ids"]
    marked = loaded.apply_chat_template(
        turns,
        chat_template=tokenizer.TRAINING_CHAT_TEMPLATE,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    assert marked["input_ids"] == served
    pairs = zip(marked["input_ids"], marked["assistant_masks"], strict=True)
    assert loaded.decode([token for token, mask in pairs if mask]) == (
        "It costs 3.<|im_end|>4.<|im_end|>"
    )


def damage_export(run: RunConfig) -> None:
    path = Path(run.layout.export(8)) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def unfinish_export(run: RunConfig) -> None:
    (Path(run.layout.export(8)) / MANIFEST).unlink()


def swap_tokenizer(run: RunConfig) -> None:
    path = Path(run.layout.tokenizer) / tokenizer.TOKENIZER
    document = json.loads(path.read_text())
    document["model"]["merges"] = document["model"]["merges"][::-1]
    path.write_text(json.dumps(document))


def lose_chat_set(run: RunConfig) -> None:
    (Path(run.layout.data) / CHAT).unlink()


@pytest.mark.parametrize(
    ("damage", "field", "message"),
    [
        (damage_export, "spec.postTraining[0]: its input", "another checksum"),
        (unfinish_export, "spec.postTraining[0]: its input", "no finished artifact there"),
        (swap_tokenizer, "spec.tokenizer", "which the rest was made with"),
        (lose_chat_set, "spec.postTraining[0].datasetPath", r"chat\.jsonl is missing"),
    ],
)
def test_post_train_damaged_input_names_it(
    damage: Any, field: str, message: str, run: RunConfig
) -> None:
    damage(run)
    with pytest.raises(InputError, match=message) as caught:
        stage.post_train(run)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"dataset_path": "nowhere.jsonl"}, "datasetPath", r"nowhere\.jsonl is not there"),
        ({"method": "MAGIC"}, "method", "unknown method"),
        ({"max_length": 65}, "maxLength", "longer than the 64 tokens"),
    ],
)
def test_post_train_bad_settings_name_their_field(
    changes: dict[str, Any], field: str, message: str, run: RunConfig
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        stage.post_train(replace(run, post_training=(replace(SFT, **changes),)))
    assert caught.value.field == f"spec.postTraining[0].{field}"


def test_post_train_bad_dataset_line_is_named(run: RunConfig) -> None:
    path = Path(run.volume) / "mine.jsonl"
    path.write_text('{"messages": 1}\n')
    settings = replace(SFT, dataset_path="mine.jsonl")
    with pytest.raises(InputError, match="not a list") as caught:
        stage.post_train(replace(run, post_training=(settings,)))
    assert caught.value.value == f"{path}:1"


def test_post_train_unknown_entry_lists_known(
    run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.STAGE_NAME, "dpo")
    with pytest.raises(InputError, match="no such post-training stage") as caught:
        stage.post_train(run)
    assert caught.value.remedy == "Known: sft, second."
