"""Sources of chats: the ids that the chat template gives, and bad rows by their place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from pretrain_llm import tokenizer
from pretrain_llm.contract.config import DataConfig, RunConfig, SourceConfig, TokenizerConfig
from pretrain_llm.data import build as stage
from pretrain_llm.data.index import Shard, open_shards
from pretrain_llm.data.packed import PackedTokens
from pretrain_llm.data.sources import source_files
from pretrain_llm.errors import InputError

from . import runs

VOCAB_SIZE = 320
TEXTS = [f"The plum number {n} costs {n * 7}, and <|im_end|> is no end." for n in range(40)]
REFUSING = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system turn') }}"
    "{% endif %}{{ '<|im_start|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
)


def chat(question: str, answer: str, system: str | None = None) -> dict[str, Any]:
    turns = [("system", system), ("user", question), ("assistant", answer)]
    return {
        "messages": [{"role": role, "content": said} for role, said in turns if said],
        "source": "left out",
    }


CHATS = [
    *(chat(f"What costs plum {n}?", f"It costs {n * 7}.") for n in range(20)),
    *(chat(f"And pear {n}?", f"– {n}\n\n", "Be brief.") for n in range(20)),
]


def lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def run_on(volume: Path, *sources: SourceConfig, given: str | None = None) -> RunConfig:
    known = TokenizerConfig(path=given) if given else TokenizerConfig(train_vocab_size=VOCAB_SIZE)
    return runs.run_config(
        volume,
        model={"vocab_size": VOCAB_SIZE},
        tokenizer=known,
        data=DataConfig(sources, held_out_fraction=0.1),
    )


def text_source(volume: Path) -> SourceConfig:
    (volume / "text.jsonl").write_text(lines({"text": text} for text in TEXTS))
    return SourceConfig("text", "text.jsonl", "jsonl", "text")


def chat_source(volume: Path, *files: str) -> SourceConfig:
    """A folder with these files of JSON Lines, or without any one of each kind."""
    folder = volume / "chats"
    folder.mkdir()
    for number, content in enumerate(files):
        (folder / f"{number}.jsonl").write_text(content)
    if not files:
        (folder / "first.jsonl.gz").write_bytes(gzip.compress(lines(CHATS[:10]).encode()))
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(CHATS[10:]), folder / "others.parquet"
        )
        (folder / "README.md").write_text("no chat")
    return SourceConfig("chats", "chats", "chat", "text")


def documents(run: RunConfig, shards: Iterable[Shard]) -> list[list[int]]:
    """Token ids, without the EOS that closes each."""
    index = open_shards(Path(run.layout.data), tokenizer.fingerprint(Path(run.layout.tokenizer)))
    tokens = PackedTokens(Path(run.layout.data), tuple(shards), token_bytes=index.token_bytes)
    ids = tokens.read(0, len(tokens))
    ends = np.flatnonzero(ids == index.eos_id) + 1
    assert ends[-1] == len(ids)
    return [piece[:-1].tolist() for piece in np.split(ids, ends) if len(piece)]


def all_documents(run: RunConfig) -> list[list[int]]:
    index = open_shards(Path(run.layout.data), tokenizer.fingerprint(Path(run.layout.tokenizer)))
    return documents(run, index.train) + documents(run, index.heldout)


def given_tokenizer(volume: Path, template: str, **settings: str) -> str:
    """One that a run of text has made, with another chat template."""
    made = run_on(volume / "made", text_source(volume_of(volume / "made")))
    stage.build(made)
    folder = Path(made.layout.tokenizer)
    path = folder / tokenizer.TOKENIZER_CONFIG
    known = json.loads(path.read_text()) | {"chat_template": template} | settings
    path.write_text(json.dumps(known))
    return str(folder)


def volume_of(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    volume = tmp_path_factory.mktemp("made")
    run = run_on(volume, chat_source(volume), text_source(volume))
    stage.build(run)
    return run


def test_build_chats_have_the_ids_of_the_chat_template_and_text_has_no_special_one(
    made: RunConfig,
) -> None:
    loaded = AutoTokenizer.from_pretrained(str(made.layout.tokenizer))
    expected = [loaded.apply_chat_template(row["messages"], return_dict=False) for row in CHATS]
    turn_end = loaded.convert_tokens_to_ids(tokenizer.TURN_END)
    assert all(ids.count(turn_end) in (2, 3) for ids in expected)
    plain = [loaded(text, split_special_tokens=True)["input_ids"] for text in TEXTS]
    assert not any(turn_end in ids for ids in plain)
    assert sorted(all_documents(made)) == sorted([*expected, *plain])


def test_build_chats_have_shards_and_a_held_out_part_of_their_own(made: RunConfig) -> None:
    index = open_shards(Path(made.layout.data), tokenizer.fingerprint(Path(made.layout.tokenizer)))
    loaded = AutoTokenizer.from_pretrained(str(made.layout.tokenizer))
    start = loaded.convert_tokens_to_ids(tokenizer.TURN_START)
    for source, is_chat in (("chats", True), ("text", False)):
        shards = [shard for shard in index.train if shard.source == source]
        assert {ids[0] == start for ids in documents(made, shards)} == {is_chat}
    assert any(ids[0] == start for ids in documents(made, index.heldout))


def test_build_tokenizer_is_trained_on_text_alone(made: RunConfig, tmp_path: Path) -> None:
    alone = run_on(tmp_path, text_source(tmp_path))
    stage.build(alone)
    prints = {tokenizer.fingerprint(Path(run.layout.tokenizer)) for run in (made, alone)}
    assert len(prints) == 1


def test_build_chats_alone_train_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trained on text") as caught:
        stage.build(run_on(tmp_path, chat_source(tmp_path)))
    assert (caught.value.field, caught.value.value) == ("spec.tokenizer.train", "chats")


def test_build_given_template_renders_and_its_change_makes_shards_anew(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
    )
    given = given_tokenizer(tmp_path, template)
    run = run_on(tmp_path, chat_source(tmp_path), given=given)
    stage.build(run)
    loaded = AutoTokenizer.from_pretrained(given)
    expected = [loaded.apply_chat_template(row["messages"], return_dict=False) for row in CHATS]
    assert sorted(all_documents(run)) == sorted(expected)
    before = stage.inputs_digest(run, source_files(run))
    (Path(given) / tokenizer.CHAT_TEMPLATE_FILE).write_text(template + "\n")
    assert stage.inputs_digest(run, source_files(run)) != before


GOOD = lines(CHATS[:3])


@pytest.mark.parametrize(
    ("files", "message", "place"),
    [
        (['{"messages": [\n'], "not JSON", "0.jsonl:1"),
        ([GOOD, GOOD + "\n" + lines([{"text": "Hi"}])], "not a list of turns: None", "1.jsonl:5"),
        ([GOOD + lines([{"messages": [{"role": "bot", "content": "Hi"}]}])], "'bot'", "0.jsonl:4"),
        ([GOOD + lines([chat("Hi", "")])], "no assistant turn", "0.jsonl:4"),
    ],
    ids=["first-row", "second-file", "role", "no-answer"],
)
def test_build_bad_row_is_named_with_its_file_and_line(
    files: list[str], message: str, place: str, tmp_path: Path
) -> None:
    run = run_on(tmp_path, text_source(tmp_path), chat_source(tmp_path, *files))
    with pytest.raises(InputError, match=message) as caught:
        stage.build(run)
    assert caught.value.field.startswith("spec.data.sources")
    assert caught.value.value == f"{tmp_path}/chats/{place}"
    assert caught.value.remedy == "Mend or remove this row."


def test_build_row_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    given = given_tokenizer(tmp_path, REFUSING)
    source = chat_source(tmp_path, lines([*CHATS[:2], chat("Hi", "Hey", "Be nice.")]))
    with pytest.raises(InputError, match="refuses it: no system turn") as caught:
        stage.build(run_on(tmp_path, source, given=given))
    assert caught.value.value == f"{tmp_path}/chats/0.jsonl:3"


def test_build_template_that_ends_documents_after_turns_is_refused(tmp_path: Path) -> None:
    given = given_tokenizer(tmp_path, tokenizer.CHAT_TEMPLATE, eos_token=tokenizer.TURN_END)
    with pytest.raises(InputError, match="ends a document here") as caught:
        stage.build(run_on(tmp_path, chat_source(tmp_path), given=given))
    assert (caught.value.field, caught.value.value) == ("spec.tokenizer.path", tokenizer.TURN_END)


def test_build_folder_without_chats_names_its_path(tmp_path: Path) -> None:
    (tmp_path / "chats").mkdir()
    source = SourceConfig("chats", "chats", "chat", "text")
    with pytest.raises(InputError, match="no chat document there") as caught:
        stage.build(run_on(tmp_path, text_source(tmp_path), source))
    assert caught.value.field == "spec.data.sources[1].path"
