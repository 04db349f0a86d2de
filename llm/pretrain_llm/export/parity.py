"""Do torchtitan's model and the exported one say the same? Both on CPU, in float32.

Two questions, asked apart, so that rounding to a smaller dtype cannot hide a wrong formula:
are the written weights the trained ones, rounded once; and are the logits the same where the
weights are equal.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from .. import (
    hub,  # noqa: F401  registers what transformers lacks
    models,
)
from ..contract import exit_codes
from ..contract.config import ModelConfig
from ..errors import RunError
from ..training.documents import visible
from .folder import DTYPES
from .heldout import Windows

MAX_LOGITS_DIFFERENCE = 1e-4


class ParityError(RunError):
    """The exported model is not the trained one: our fault, and a retry ends the same."""

    exit_code = exit_codes.DO_NOT_RESTART


class ExportedModel:
    """What anybody gets who loads the folder with transformers."""

    def __init__(self, folder: Path) -> None:
        self._model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        self._model.eval()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self._model.parameters())

    @torch.no_grad()
    def logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Tokens, and their positions in their documents: (batch, length) to (.., vocabulary)."""
        output = self._model(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=visible(positions),
            use_cache=False,
        )
        return output.logits

    def check_shapes(self, model: ModelConfig) -> None:
        """Raises ParityError unless config.json describes the trained model."""
        found = models.architecture(model.architecture).model_of(self._model.config.to_dict())
        if found != model:
            raise ParityError(f"config.json describes {found}, not {model}")

    def check_weights(self, weights: dict[str, torch.Tensor], dtype: str) -> None:
        """Raises ParityError unless the weights are these, rounded to the dtype."""
        loaded = self._model.state_dict()
        for name, tensor in weights.items():
            if not torch.equal(loaded[name], tensor.to(DTYPES[dtype]).float()):
                raise ParityError(f"{name} was not written as it was trained")

    def use_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Replaces the rounded weights by the trained ones."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(weights[name])


def check_logits(trained: torch.Tensor, exported: ExportedModel, sample: Windows) -> float:
    """The largest difference of any logit. Raises ParityError where it is too large."""
    difference = (trained - exported.logits(sample.inputs, sample.positions)).abs().max().item()
    if not difference <= MAX_LOGITS_DIFFERENCE:  # also where it is not a number
        raise ParityError(
            f"the exported model's logits differ from the trained one's by {difference:.3g}, "
            f"more than {MAX_LOGITS_DIFFERENCE:g}"
        )
    return difference
