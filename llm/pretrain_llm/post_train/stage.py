"""The PostTraining stage around a method: verify the input, let the method train, publish.

export, or the stage before --verify--> method --> model + tokenizer --manifest--> post/NAME
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from .. import tokenizer
from ..artifacts import (
    artifact_digest,
    entries,
    finished,
    fresh_folder,
    mismatches,
    publish,
    read_manifest,
    sha256_of,
    verified_manifest,
    write_manifest,
)
from ..contract import config, environment
from ..contract.config import PostTrainingConfig, RunConfig
from ..contract.manifests import ArtifactManifest
from ..contract.results import StageResult
from ..conversation import Conversation
from ..data.index import CHAT
from ..errors import InputError
from .dataset import conversations

# Method of the API -> its module here, imported on use; each has train(job) -> metrics.
METHODS = {"SFT": "sft"}

TOKENIZER_FILES = (tokenizer.TOKENIZER, tokenizer.TOKENIZER_CONFIG, tokenizer.CHAT_TEMPLATE_FILE)


@dataclass(frozen=True)
class Job:
    """What a method gets: it reads `source`, and writes a Hugging Face model into `output`."""

    source: Path
    output: Path
    conversations: list[Conversation]
    settings: PostTrainingConfig
    field: str  # of the settings, in the spec
    seed: int
    device: str  # cpu | cuda


def post_train(run: RunConfig) -> StageResult:
    """Runs the entry that the pod's environment names. Raises InputError."""
    started = time.monotonic()
    settings, field = entry(run, os.environ.get(environment.STAGE_NAME))
    source = source_folder(run, settings, os.environ.get(environment.INPUT))
    given = verified_manifest(source, field=f"{field}: its input")
    for folder in (source, Path(run.layout.tokenizer)):
        tokenizer.check(folder, given.tokenizer_fingerprint, "spec.tokenizer")
    dataset = dataset_file(run, settings, field)
    output = Path(run.layout.post_training(settings.name))
    source_digest = artifact_digest(given)
    digest = config.digest([settings, source_digest, sha256_of(dataset), run.training.seed])
    if result := finished(output, digest):
        return replace(result, name=settings.name)
    partial = fresh_folder(output)
    device = run.nodes.device
    examples = conversations(dataset, f"{field}.datasetPath")
    job = Job(source, partial, examples, settings, field, run.training.seed, device)
    metrics = method(settings.method, field)(job)
    _copy_tokenizer(source, partial)
    publish(partial, output)
    manifest = ArtifactManifest(
        stage="PostTraining",
        inputs_digest=digest,
        tokenizer_fingerprint=given.tokenizer_fingerprint,
        files=entries(output),
        step=given.step,
        source_digests=(source_digest,),
        metrics=metrics,
        versions={name: version(name) for name in ("torch", "transformers", "trl")},
        seconds=round(time.monotonic() - started, 3),
    )
    return replace(write_manifest(output, manifest), name=settings.name)


def entry(run: RunConfig, name: str | None) -> tuple[PostTrainingConfig, str]:
    """The settings of one entry of postTraining, and its field. Raises InputError."""
    for number, settings in enumerate(run.post_training):
        if settings.name == name:
            return settings, f"spec.postTraining[{number}]"
    raise InputError(
        "no such post-training stage",
        field="spec.postTraining",
        value=name,
        remedy=f"Known: {', '.join(settings.name for settings in run.post_training) or 'none'}.",
    )


def source_folder(run: RunConfig, settings: PostTrainingConfig, given: str | None) -> Path:
    """Where the stage starts from: as told, or the stage before it, or the newest export."""
    if given:
        return Path(given)
    position = run.post_training.index(settings)
    if position:
        return Path(run.layout.post_training(run.post_training[position - 1].name))
    return Path(run.layout.export(run.training.steps))


def dataset_file(run: RunConfig, settings: PostTrainingConfig, field: str) -> Path:
    """The named dataset, or the chat set that the Data stage made. Raises InputError."""
    if settings.dataset_path is not None:
        path = Path(run.located(settings.dataset_path))
        problems = [] if path.is_file() else [f"{path} is not there"]
    else:
        folder = Path(run.layout.data)
        path, manifest = folder / CHAT, read_manifest(folder)
        made = [file for file in manifest.files if file.path == CHAT] if manifest else []
        problems = mismatches(folder, made) if made else [f"no chat set in {folder}"]
    if problems:
        raise InputError(
            "; ".join(problems),
            field=f"{field}.datasetPath",
            value=settings.dataset_path or path,
            remedy="Name a file of JSON Lines, or none to use the set made from the corpus.",
        )
    return path


def method(name: str, field: str) -> Callable[[Job], dict[str, float]]:
    """The training function of a method. Raises InputError."""
    if name not in METHODS:
        raise InputError(
            "unknown method",
            field=f"{field}.method",
            value=name,
            remedy=f"Use one of {', '.join(METHODS)}.",
        )
    train: Callable[[Job], dict[str, float]]
    train = import_module(f".{METHODS[name]}", __package__).train
    return train


def _copy_tokenizer(source: Path, output: Path) -> None:
    """The files as they are: a library that saves its own version could change what they mean."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, output / name)
