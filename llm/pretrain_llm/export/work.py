"""The stage itself. Idempotent: a finished folder of the same checkpoint is returned as it is."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from .. import artifacts
from ..checkpoints import folders
from ..checkpoints.selection import Identity, newest_whole
from ..contract.config import RunConfig, digest
from ..contract.curriculum import segment_of
from ..contract.manifests import ArtifactManifest, CheckpointManifest
from ..contract.results import StageResult
from ..errors import InputError
from ..training.inputs import Inputs, identity, open_inputs
from . import soup
from .soup import Ingredient

STAGE = "Export"

logger = logging.getLogger(__name__)


def export(run: RunConfig) -> StageResult:
    """Raises InputError, ParityError."""
    inputs = open_inputs(run)
    ours = identity(run, inputs)
    checkpoint = newest_verified(Path(run.layout.checkpoints), ours)
    folder = Path(run.layout.export(checkpoint.step))
    if checkpoint.step < run.training.steps:
        steps = f"step {checkpoint.step} of {run.training.steps}"
        logger.error("exporting %s: nothing newer verifies (see quarantine/)", steps)
    sources = soup.ingredients(run, ours, checkpoint)
    run = segment_of(run, checkpoint.step).run  # its length and rotation are the model's
    inputs_digest = _inputs_digest(run, inputs, checkpoint, sources)
    if result := artifacts.finished(folder, inputs_digest):
        return result
    shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
    folder.mkdir(parents=True)
    shares = {source.folder: source.share for source in sources}
    metrics = _write_and_compare(run, inputs, shares, folder)
    metrics["stepsMissing"] = run.training.steps - checkpoint.step
    manifest = ArtifactManifest(
        stage=STAGE,
        inputs_digest=inputs_digest,
        tokenizer_fingerprint=checkpoint.tokenizer_fingerprint,
        files=artifacts.entries(folder),
        step=checkpoint.step,
        source_digests=tuple(_digest(source.manifest) for source in sources),
        mean_of=tuple(map(str, sources)) if run.export.soup else (),
        metrics=metrics,
        versions={name: version(name) for name in ("torch", "torchtitan", "transformers")},
    )
    return artifacts.write_manifest(folder, manifest)


def newest_verified(root: Path, ours: Identity) -> CheckpointManifest:
    """The newest checkpoint whose files are as its manifest says. Raises InputError.

    Damaged ones are quarantined, as training does: otherwise the model would silently be an older
    one, again at every export.
    """

    def damage(manifest: CheckpointManifest) -> str | None:
        folder = folders.step_folder(root, manifest.step)
        return folders.described(artifacts.mismatches(folder, manifest.files))

    def set_aside(step: int, reason: str) -> None:
        folders.quarantine(root, step, reason)

    found = newest_whole(folders.scan(root), ours, str(root), damage=damage, set_aside=set_aside)
    if found is None:
        raise InputError(
            "no verified checkpoint there",
            field="spec.checkpoint",
            value=root,
            remedy="Let training finish first.",
        )
    return found


def _write_and_compare(
    run: RunConfig, inputs: Inputs, shares: dict[Path, float], folder: Path
) -> dict[str, float]:
    """The folder's files, and the metrics that prove them."""
    from . import heldout, parity  # heavy: not needed where the export is there already
    from .folder import copy_tokenizer, special_token_ids, write_configs, write_weights
    from .trained import TrainedModel

    model, length, dtype = run.model, run.training.sequence_length, run.export.dtype
    sample = next(heldout.windows(inputs.folder, inputs.index, length))
    trained = TrainedModel(model, length, shares)
    trained_logits = trained.logits(sample.inputs, sample.positions)
    weights = trained.weights()
    write_weights(folder, weights, dtype)
    write_configs(folder, model, length, dtype, special_token_ids(inputs.tokenizer, inputs.index))
    copy_tokenizer(inputs.tokenizer, folder)

    exported = parity.ExportedModel(folder)
    exported.check_shapes(model)
    exported.check_weights(weights, dtype)
    bits_per_byte = heldout.bits_per_byte(exported.logits, inputs.folder, inputs.index, length)
    exported.use_weights(weights)
    return {
        "logitsMaxAbsDiff": parity.check_logits(trained_logits, exported, sample),
        "bitsPerByteHeldOut": bits_per_byte,
        "parameters": exported.parameters,
    }


def _inputs_digest(
    run: RunConfig, inputs: Inputs, checkpoint: CheckpointManifest, sources: Sequence[Ingredient]
) -> str:
    shares = [[_digest(source.manifest), source.share] for source in sources]
    return digest(
        {
            **({"soup": shares} if run.export.soup else {}),
            "checkpoint": _digest(checkpoint),
            "data": inputs.data_digest,
            "model": asdict(run.model),
            "sequenceLength": run.training.sequence_length,
            "dtype": run.export.dtype,
            "steps": run.training.steps,  # of which stepsMissing is told
        }
    )


def _digest(checkpoint: CheckpointManifest) -> str:
    return digest({entry.path: entry.sha256 for entry in checkpoint.files})
