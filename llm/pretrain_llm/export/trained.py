"""The trained model itself, as torchtitan runs it: whole, in float32, on CPU, in one process.

On CPU also where there is a GPU: the comparison is of two implementations, not of two kernels.
"""

from __future__ import annotations

import torch

from .. import models
from ..contract.config import ModelConfig
from ..training import cpu
from . import mean
from .mean import Shares, Weights


class TrainedModel:
    """Weights of one checkpoint, or the mean of several; optimizer state and data position are
    not read."""

    def __init__(self, model: ModelConfig, sequence_length: int, shares: Shares) -> None:
        cpu.enable()
        spec = models.architecture(model.architecture).model_spec(model, sequence_length)
        self._spec = cpu.adapted(spec)
        with torch.device("meta"):
            self._model = self._spec.model.build()
        self._model.to_empty(device="cpu")
        with torch.no_grad():
            self._model.init_weights()  # the rotary tables; the parameters are loaded next
        weights = self._model.state_dict()
        mean.load(weights, shares)
        self._model.load_state_dict(weights)
        self._model.eval()

    @torch.no_grad()
    def logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Tokens, and their positions in their documents: (batch, length) to (.., vocabulary)."""
        masks = self._model.get_attention_masks(positions=positions)
        return self._model(tokens, positions=positions, attention_masks=masks).float()

    def weights(self) -> Weights:
        """By Hugging Face's names."""
        adapter = self._spec.state_dict_adapter(self._spec.model, None)
        return adapter.to_hf(self._model.state_dict())
