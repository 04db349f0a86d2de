"""The Data stage on tiny corpora, with the real readers, tokenizers and executor."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from fsspec import AbstractFileSystem
from fsspec.registry import _registry, known_implementations
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from pretrain_llm import tokenizer
from pretrain_llm.contract import codec, environment, exit_codes
from pretrain_llm.contract.config import DataConfig, RunConfig, SourceConfig, TokenizerConfig
from pretrain_llm.contract.layout import Layout
from pretrain_llm.contract.results import TerminationMessage
from pretrain_llm.data import build as stage
from pretrain_llm.data import tokenise
from pretrain_llm.data.index import CHAT, ShardIndex, open_shards
from pretrain_llm.data.packed import PackedTokens
from pretrain_llm.errors import InputError

from . import runs

VOCAB_SIZE = 320
TEXTS = [
    f"Chapter {n}\n\nThe {word} number {n} costs {n * 7} – and it is the {word} that counts most."
    for n in range(20)
    for word in ("apple", "pear", "plüm")
]


def write_jsonl(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def run_on(volume: Path, *sources: SourceConfig, **changes: Any) -> RunConfig:
    given: dict[str, Any] = {
        "model": {"vocab_size": VOCAB_SIZE},
        "tokenizer": TokenizerConfig(train_vocab_size=VOCAB_SIZE),
        "data": DataConfig(sources, held_out_fraction=0.1),
    }
    return runs.run_config(volume, **(given | changes))


def jsonl(path: str | Path, field: str = "text") -> SourceConfig:
    return SourceConfig("corpus", str(path), "jsonl", field)


def small_run(volume: Path, **changes: Any) -> RunConfig:
    return run_on(volume, jsonl(write_jsonl(volume / "corpus.jsonl", TEXTS)), **changes)


def opened(run: RunConfig) -> ShardIndex:
    return open_shards(Path(run.layout.data), tokenizer.fingerprint(Path(run.layout.tokenizer)))


def texts_of(run: RunConfig, split: str) -> list[str]:
    """The documents of one split, decoded."""
    index = opened(run)
    tokens = PackedTokens(
        Path(run.layout.data), getattr(index, split), token_bytes=index.token_bytes
    )
    ids = tokens.read(0, len(tokens))
    bpe = Tokenizer.from_file(str(run.layout.tokenizer / tokenizer.TOKENIZER))
    ends = np.flatnonzero(ids == index.eos_id)
    assert ends[-1] == len(ids) - 1  # every document is closed
    return [bpe.decode(piece[:-1].tolist()) for piece in np.split(ids, ends + 1) if len(piece)]


def contents(folder: Path) -> dict[str, bytes]:
    """All bytes below a folder but the manifest, which states how long the stage took."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.name != "manifest.json"
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run whose Data stage has finished."""
    run = small_run(tmp_path_factory.mktemp("made"))
    stage.build(run)
    return run


def test_build_documents_split_without_loss(made: RunConfig) -> None:
    train, heldout = texts_of(made, "train"), texts_of(made, "heldout")
    assert sorted(train + heldout) == sorted(TEXTS)
    assert train != [text for text in TEXTS if text in train]  # shuffled
    assert 1 <= len(heldout) <= 15


def test_build_result_counts_what_is_there(made: RunConfig) -> None:
    result, index = stage.build(made), opened(made)
    size = sum(len(text.encode()) for text in TEXTS)
    heldout = texts_of(made, "heldout")
    tokens = index.train_tokens + index.heldout_tokens - len(TEXTS)
    assert result.metrics == {
        "trainTokens": index.train_tokens,
        "heldOutTokens": index.heldout_tokens,
        "heldOutBytes": sum(len(text.encode()) for text in heldout),
        "documents": len(TEXTS),
        "bytes": size,
        "bytesPerToken": pytest.approx(size / tokens, abs=1e-4),
        "vocabSize": VOCAB_SIZE,
    }
    assert index.heldout_bytes == result.metrics["heldOutBytes"]


def test_build_chat_set_leaves_held_out_text_out(made: RunConfig) -> None:
    lines = (Path(made.layout.data) / CHAT).read_text().splitlines()
    turns = [json.loads(line)["messages"] for line in lines]
    found = {f"{ask['content'].removeprefix('Continue: ')} {say['content']}" for ask, say in turns}
    assert found == {" ".join(text.split()) for text in texts_of(made, "train")}


def test_build_tokenizer_loads_in_transformers(made: RunConfig) -> None:
    loaded = AutoTokenizer.from_pretrained(str(made.layout.tokenizer))
    assert len(loaded) == VOCAB_SIZE
    assert (loaded.eos_token, loaded.pad_token) == (tokenizer.END_OF_TEXT, tokenizer.PAD)
    text = "plüm – \n\n 7"
    assert loaded.decode(loaded(text)["input_ids"]) == text
    chat = loaded.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_build_again_does_no_work(made: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(stage, "write_tokenizer")  # would fail if it were needed
    assert stage.build(made).digest == stage.build(made).digest


@pytest.mark.parametrize(
    "damage",
    [
        lambda layout: Path(layout.tokenizer / tokenizer.TOKENIZER).unlink(),
        lambda layout: Path(layout.data / CHAT).write_text(""),
        lambda layout: Path(layout.data / "manifest.json").write_text("{"),
    ],
    ids=["lost-tokenizer", "emptied-file", "broken-manifest"],
)
def test_build_damaged_result_is_made_again(
    damage: Callable[[Layout], object], tmp_path: Path
) -> None:
    run = small_run(tmp_path)
    stage.build(run)
    before = contents(Path(run.layout.root))
    damage(run.layout)
    stage.build(run)
    assert contents(Path(run.layout.root)) == before


@pytest.mark.parametrize("step", ["tokenise", "chat_set", "write_manifest"])
def test_build_stopped_at_any_step_ends_the_same(
    step: str, made: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path)
    working = getattr(stage, step)
    monkeypatch.setattr(stage, step, _interrupted)
    with pytest.raises(KeyboardInterrupt):
        stage.build(run)
    monkeypatch.setattr(stage, step, working)
    stage.build(run)
    for folder in ("data", "tokenizer"):
        made_once = contents(Path(made.layout.root) / folder)
        assert contents(Path(run.layout.root) / folder) == made_once
    assert sorted(os.listdir(run.layout.root)) == ["data", "tokenizer"]


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_build_any_number_of_cpus_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cpus in (1, 2):
        monkeypatch.setattr(tokenise, "cpus", lambda cpus=cpus: cpus)
        volume = tmp_path / str(cpus)
        for part in range(3):
            write_jsonl(volume / f"corpus/{part}.jsonl", TEXTS[part::3])
        run = run_on(volume, jsonl("corpus"))
        stage.build(run)
        found.append(contents(Path(run.layout.root)))
    assert found[0] == found[1]


def test_build_other_seed_shuffles_but_holds_out_the_same(made: RunConfig, tmp_path: Path) -> None:
    run = small_run(tmp_path, training={"seed": 2})
    stage.build(run)
    assert texts_of(run, "heldout") == texts_of(made, "heldout")
    assert texts_of(run, "train") != texts_of(made, "train")
    assert sorted(texts_of(run, "train")) == sorted(texts_of(made, "train"))


def test_build_special_token_in_text_ends_no_document(tmp_path: Path) -> None:
    texts = [*TEXTS, "What <|endoftext|> and <|im_end|> mean in ChatML is told elsewhere."]
    run = run_on(tmp_path, jsonl(write_jsonl(tmp_path / "corpus.jsonl", texts)))
    stage.build(run)
    assert sorted(texts_of(run, "train") + texts_of(run, "heldout")) == sorted(texts)


def test_build_parquet_text_and_gzip_sources_are_all_read(tmp_path: Path) -> None:
    table = pyarrow.table({"body": TEXTS[:20]})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    for number, text in enumerate(TEXTS[20:40]):
        path = tmp_path / f"pages/{number % 3}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS[40:])
    (tmp_path / "part.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    run = run_on(
        tmp_path,
        SourceConfig("rows", "rows.parquet", "parquet", "body"),
        SourceConfig("pages", str(tmp_path / "pages"), "text", "text"),
        SourceConfig("lines", f"file://{tmp_path}/part.jsonl.gz", "jsonl", "text"),
    )
    stage.build(run)
    assert sorted(texts_of(run, "train") + texts_of(run, "heldout")) == sorted(TEXTS)


def test_build_sources_have_shards_of_their_own_that_weights_do_not_change(tmp_path: Path) -> None:
    for name, part in (("left", TEXTS[:30]), ("right", TEXTS[30:])):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in part)
        (tmp_path / f"{name}.jsonl").write_text(rows)
    sources = [SourceConfig(name, f"{name}.jsonl", "jsonl", "text") for name in ("left", "right")]
    run = run_on(tmp_path, *sources)
    first = stage.build(run)
    index = opened(run)
    assert {shard.source for shard in index.train} == {"left", "right"}
    assert all(shard.path.startswith(f"train/{shard.source}/") for shard in index.train)
    weighted = run_on(tmp_path, *(replace(source, weight=1.0) for source in sources))
    assert stage.build(weighted).digest == first.digest


def foreign_tokenizer(folder: Path) -> Path:
    """A tokenizer from elsewhere: its own end of text, a BOS that it adds, no chat."""
    folder.mkdir()
    words = {"[UNK]": 0, "</s>": 1, "<s>": 2, "the": 3, "apple": 4}
    foreign = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    foreign.pre_tokenizer = pre_tokenizers.Whitespace()
    foreign.add_special_tokens(["<s>", "</s>"])
    foreign.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    foreign.save(str(folder / tokenizer.TOKENIZER))
    settings = {"eos_token": {"content": "</s>"}, "pad_token": None}
    (folder / tokenizer.TOKENIZER_CONFIG).write_text(json.dumps(settings))
    return folder


def test_build_given_tokenizer_is_completed_and_keeps_its_ids(tmp_path: Path) -> None:
    given = foreign_tokenizer(tmp_path / "given")
    run = small_run(tmp_path, tokenizer=TokenizerConfig(path="given"))
    stage.build(run)
    index = opened(run)
    assert (index.eos_id, index.vocab_size) == (1, 9)
    tokens = PackedTokens(Path(run.layout.data), index.train, token_bytes=2)
    ids = tokens.read(0, len(tokens))
    assert 2 not in ids  # documents are joined by EOS alone
    assert (ids == 1).sum() == len(TEXTS) - len(np.flatnonzero(heldout_ids(run) == 1))
    loaded = AutoTokenizer.from_pretrained(str(run.layout.tokenizer))
    assert (loaded.eos_token, loaded.pad_token) == ("</s>", tokenizer.PAD)
    assert tokenizer.fingerprint(given) != index.tokenizer_fingerprint  # chat tokens were added


def test_build_given_chat_template_is_kept(tmp_path: Path) -> None:
    given = foreign_tokenizer(tmp_path / "given")
    template = "{% for m in messages %}{{ m['content'] }}</s>{% endfor %}"
    (given / tokenizer.CHAT_TEMPLATE_FILE).write_text(template)
    run = small_run(tmp_path, tokenizer=TokenizerConfig(path="given"))
    stage.build(run)
    loaded = AutoTokenizer.from_pretrained(str(run.layout.tokenizer))
    assert loaded.chat_template == template
    assert loaded.convert_tokens_to_ids(tokenizer.TURN_START) == loaded.unk_token_id


@pytest.fixture
def storages(monkeypatch: pytest.MonkeyPatch) -> None:
    undriven = {"class": "no_such_driver.FileSystem", "err": "Install undriven"}
    monkeypatch.setitem(known_implementations, "undriven", undriven)
    monkeypatch.setitem(_registry, "closed", ClosedBucket)


def heldout_ids(run: RunConfig) -> np.ndarray:
    tokens = PackedTokens(Path(run.layout.data), opened(run).heldout, token_bytes=2)
    return tokens.read(0, len(tokens))


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        (jsonl("nowhere"), "path", "nothing there"),
        (jsonl("empty"), "path", "no jsonl document there"),
        (jsonl("empty.jsonl"), "path", "no jsonl document there"),
        (jsonl("corpus.jsonl", "body"), "textField", "no row in .* has text in this field"),
        (jsonl("numbers.jsonl"), "format", "is of type int, not text"),
        (jsonl("lists.jsonl"), "format", "is not jsonl"),
        (SourceConfig("s", "corpus.jsonl", "parquet", "text"), "format", "is not parquet"),
        (SourceConfig("s", "binary", "text", "text"), "format", "is not UTF-8 text"),
        (SourceConfig("s", "corpus.jsonl", "csv", "text"), "format", "no reader"),
    ],
    ids=lambda value: getattr(value, "path", None),
)
def test_build_bad_source_names_its_field(
    source: SourceConfig, field: str, message: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "numbers.jsonl").write_text('{"text": 7}\n')
    (tmp_path / "lists.jsonl").write_text("[1, 2]\n")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match=message) as caught:
        stage.build(run_on(tmp_path, jsonl("corpus.jsonl"), source))
    assert caught.value.field == f"spec.data.sources[1].{field}"
    assert caught.value.remedy


class NoCredentialsError(Exception):
    """As botocore's is called."""


class ClosedBucket(AbstractFileSystem):
    """Storage that answers as S3's driver does where a pod may not read."""

    protocol = "closed"

    def isdir(self, path: str) -> bool:
        raise {"secret": PermissionError, "anonymous": NoCredentialsError, "away": OSError}[
            self._strip_protocol(path)
        ]("no answer for you")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("undriven://bucket/corpus", r"cannot be read in this image: Install undriven"),
        ("unheard-of://bucket/corpus", r"cannot be read in this image: Protocol not known"),
        ("closed://secret", r"may not be read: no answer.*spec\.data\.template\.env"),
        ("closed://anonymous", r"may not be read: no answer.*spec\.data\.template\.env"),
    ],
)
def test_build_source_out_of_reach_names_its_path(
    location: str, message: str, storages: None, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        stage.build(run_on(tmp_path, jsonl(location)))
    assert (caught.value.field, caught.value.value) == ("spec.data.sources[0].path", location)


def test_build_storage_that_fails_is_tried_again(storages: None, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no answer for you"):
        stage.build(run_on(tmp_path, jsonl("closed://away")))


def test_build_reads_a_folder_of_another_storage(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    memory.pipe({"/corpus/a.jsonl": lines.encode(), "/corpus/readme.md": b"not a document"})
    run = run_on(tmp_path, jsonl("memory://corpus"))
    try:
        stage.build(run)
    finally:
        memory.rm("/corpus", recursive=True)
    assert sorted(texts_of(run, "train") + texts_of(run, "heldout")) == sorted(TEXTS)


def test_image_has_a_driver_for_s3() -> None:
    assert "s3" in fsspec.get_filesystem_class("s3").protocol


@pytest.mark.parametrize("given", [False, True], ids=["found-in-training", "found-by-a-worker"])
def test_build_unreadable_file_late_in_a_folder_is_named(given: bool, tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    for number, text in enumerate(TEXTS[:8]):
        (tmp_path / f"pages/{number}.txt").write_text(text)
    (tmp_path / "pages/9.txt").write_bytes(b"\xff\xfe\xff")
    source = SourceConfig("pages", "pages", "text", "text")
    spec = TokenizerConfig(path=str(foreign_tokenizer(tmp_path / "given"))) if given else None
    run = run_on(tmp_path, source, **({"tokenizer": spec} if spec else {}))
    with pytest.raises(InputError, match=r"9\.txt is not UTF-8 text") as caught:
        stage.build(run)
    assert caught.value.field == "spec.data.sources"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"tokenizer": TokenizerConfig(path="nowhere")}, "spec.tokenizer.path", "no tokenizer"),
        (
            {"tokenizer": TokenizerConfig(train_vocab_size=VOCAB_SIZE + 1)},
            "spec.model.vocabSize",
            "has 321 tokens, more than the model",
        ),
        (
            {"tokenizer": TokenizerConfig(train_vocab_size=259)},
            "spec.tokenizer.train.vocabSize",
            "too small",
        ),
        (
            {"training": {"sequence_length": 10**6}},
            "spec.training.sequenceLength",
            "only .* tokens; one sample takes 1000001",
        ),
    ],
    ids=["no-tokenizer", "too-large", "too-small", "too-long"],
)
def test_build_bad_tokenizer_or_length_names_its_field(
    changes: dict[str, Any], field: str, message: str, tmp_path: Path
) -> None:
    run = small_run(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        stage.build(run)
    assert caught.value.field == field


def test_build_given_tokenizer_larger_than_the_model_names_vocab_size(tmp_path: Path) -> None:
    foreign_tokenizer(tmp_path / "given")
    run = small_run(tmp_path, tokenizer=TokenizerConfig(path="given"))
    run = runs.changed(run, model={"vocab_size": 8})
    with pytest.raises(InputError, match="has 9 tokens, more than the model") as caught:
        stage.build(run)
    assert (caught.value.field, caught.value.value) == ("spec.model.vocabSize", 8)


def test_build_equal_documents_only_cannot_be_split(tmp_path: Path) -> None:
    run = run_on(tmp_path, jsonl(write_jsonl(tmp_path / "corpus.jsonl", TEXTS[:1] * 3)))
    with pytest.raises(InputError, match="at least two different documents"):
        stage.build(run)


@pytest.mark.parametrize(
    ("quota", "usable"),
    [("max 100000", 4), ("150000 100000", 1), ("20000 100000", 1), ("900000 100000", 4), (None, 4)],
)
def test_cpus_container_quota_is_kept(
    quota: str | None, usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert tokenise.cpus(tmp_path / "cpu.max") == usable


def test_module_bad_input_leaves_termination_message(tmp_path: Path) -> None:
    run = run_on(tmp_path, jsonl("nowhere"))
    log = tmp_path / "termination-log"
    done = subprocess.run(
        [sys.executable, "-m", "pretrain_llm.data"],
        env=os.environ
        | {
            environment.CONFIG: str(runs.write_config(run, tmp_path / "run.json")),
            environment.TERMINATION_LOG: str(log),
            "PYTHONPATH": "llm",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    message = codec.from_json(TerminationMessage, log.read_bytes())
    assert done.returncode == exit_codes.BAD_INPUT
    assert message.error is not None
    assert message.error.field == "spec.data.sources[0].path"
    assert message.error.value == f"{tmp_path}/nowhere"
