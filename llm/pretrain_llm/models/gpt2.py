"""GPT-2: learned positions, LayerNorm before attention and feed-forward, GELU, biases or none.

Sources: Radford et al. 2019 (Language Models are Unsupervised Multitask Learners), section 2.3, and
its published code; the table of positions is initialised as transformers does. No dropout, as in
nanoGPT. Not here: anything of the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchtitan.distributed import pipeline_parallel
from torchtitan.models.common import Embedding, Linear
from torchtitan.models.common.attention import AttentionMasksType
from torchtitan.models.common.param_init import skip_param_init
from torchtitan.protocols.model_spec import ModelSpec

from ..contract.config import DEFAULT_ROPE_THETA, ModelConfig
from .parts import hf_config as hf
from .parts.adapter import RenamingAdapter
from .parts.biased import (
    BiasedBlock,
    BiasedModel,
    Init,
    UnbiasedLayerNorm,
    attention,
    bias_of_zeros,
    feed_forward,
    layer_norm,
)
from .parts.decoder_spec import decoder_spec
from .parts.embedded import EmbeddedDecoder
from .parts.nope import NoPE

_STD = 0.02
_INIT: Init = {"weight": partial(nn.init.normal_, std=_STD)}
_TIED_INIT: Init = {"weight": skip_param_init}  # drawn as the output layer's weight


class Gpt2Block(BiasedBlock):
    @dataclass(kw_only=True, slots=True)
    class Config(BiasedBlock.Config):
        pass

    def forward(
        self,
        x: Tensor,
        attention_masks: AttentionMasksType | None,
        positions: Tensor | None = None,
    ) -> Tensor:
        h = x + self.attention(self.attention_norm(x), attention_masks, positions)
        return h + self.feed_forward(self.ffn_norm(h))


class Gpt2Model(EmbeddedDecoder, BiasedModel):
    """The table of positions is beside that of tokens, also in tensor and pipeline parallelism."""

    @dataclass(kw_only=True, slots=True)
    class Config(BiasedModel.Config):
        pos_embeddings: Embedding.Config

        def update_from_config(self, *, config: Any, **kwargs: Any) -> None:
            BiasedModel.Config.update_from_config(self, config=config, **kwargs)
            self.pos_embeddings.sharding_config = self.tok_embeddings.sharding_config

        def get_nparams_and_flops(self, model: nn.Module, seq_len: int) -> tuple[int, int]:
            """The table of positions is in no matmul."""
            count, flops = BiasedModel.Config.get_nparams_and_flops(self, model, seq_len)
            if self.enable_weight_tying:
                rows, width = self.pos_embeddings.num_embeddings, self.pos_embeddings.embedding_dim
                flops -= 6 * rows * width
            return count, flops

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.pos_embeddings = config.pos_embeddings.build()

    def embedded(self, tokens: Tensor, positions: Tensor | None) -> Tensor:
        assert positions is not None, "the loader says every token's position in its document"
        return self.tok_embeddings(tokens) + self.pos_embeddings(positions)


class Gpt2Adapter(RenamingAdapter):
    """Hugging Face has the matrices of blocks turned, one for queries, keys and values, and always
    biases: zeros, where the model has none."""

    names: Mapping[str, str] = {
        "tok_embeddings.weight": "transformer.wte.weight",
        "pos_embeddings.weight": "transformer.wpe.weight",
        **{
            f"layers.{{}}.{ours}.{kind}": f"transformer.h.{{}}.{theirs}.{kind}"
            for ours, theirs in {
                "attention_norm": "ln_1",
                "ffn_norm": "ln_2",
                "attention.qkv_linear.wqkv": "attn.c_attn",
                "attention.wo": "attn.c_proj",
                "feed_forward.w1": "mlp.c_fc",
                "feed_forward.w2": "mlp.c_proj",
            }.items()
            for kind in ("weight", "bias")
        },
        "norm.weight": "transformer.ln_f.weight",
        "norm.bias": "transformer.ln_f.bias",
        "lm_head.weight": "lm_head.weight",
    }

    def to_hf(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        theirs = super().to_hf(_joined(state_dict))
        if "transformer.ln_f.bias" not in theirs:
            theirs |= _zero_biases(theirs)
        return {name: _turned(name, tensor) for name, tensor in theirs.items()}

    def from_hf(self, hf_state_dict: dict[str, Any]) -> dict[str, Any]:
        """A model without biases takes none: they must be zero. Raises ValueError."""
        theirs = dict(hf_state_dict)
        if isinstance(self.model_config.norm, UnbiasedLayerNorm.Config):
            for name in [name for name in theirs if name.endswith(".bias")]:
                if theirs.pop(name).any():
                    raise ValueError(f"{name} is not zero, but the model has no biases")
        turned = {name: _turned(name, tensor) for name, tensor in theirs.items()}
        return _parted(super().from_hf(turned))


_PARTS = ("wq", "wk", "wv")  # torchtitan's names in a checkpoint
_TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def _zero_biases(weights: dict[str, Any]) -> dict[str, Any]:
    """One for each row of a matrix (as torchtitan has it) or each weight of a norm."""
    return {
        name.removesuffix("weight") + "bias": weight.new_zeros(weight.shape[0])
        for name, weight in weights.items()
        if ".h." in name or ".ln_f." in name
    }


def _turned(name: str, tensor: Any) -> Any:
    return tensor.t().contiguous() if name.endswith(_TURNED) else tensor


def _joined(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Queries, keys and values one under the other, as wqkv."""
    joined = dict(state_dict)
    for name in [name for name in state_dict if ".wq." in name]:
        parts = [joined.pop(name.replace(".wq.", f".{part}.")) for part in _PARTS]
        joined[name.replace(".wq.", ".wqkv.")] = torch.cat(parts)
    return joined


def _parted(state_dict: dict[str, Any]) -> dict[str, Any]:
    parted = dict(state_dict)
    for name in [name for name in state_dict if ".wqkv." in name]:
        for part, tensor in zip(_PARTS, parted.pop(name).chunk(3), strict=True):
            parted[name.replace(".wqkv.", f".{part}.")] = tensor.contiguous()
    return parted


def model_spec(model: ModelConfig, sequence_length: int) -> ModelSpec:
    """`sequence_length` is at most `model.max_positions`, and shapes nothing."""
    assert model.max_positions is not None
    assert sequence_length <= model.max_positions
    return decoder_spec(
        model, _decoder(model, model.max_positions), Gpt2Adapter, pipelining=_pipeline
    )


def _pipeline(
    model: nn.Module, *, parallel_dims: Any, parallelism: Any, model_config: Any, **others: Any
) -> Any:
    """torchtitan's split of the blocks, and the table of positions in the first stage."""
    metadata = pipeline_parallel._get_pipeline_metadata(parallel_dims, parallelism, model_config)
    parts = pipeline_parallel._generate_llm_fqn_per_model_part(*metadata)
    parts[0].append("pos_embeddings")
    return pipeline_parallel.pipeline_llm(
        model,
        parallel_dims=parallel_dims,
        parallelism=replace(parallelism, module_fqns_per_model_part=parts),
        model_config=model_config,
        **others,
    )


def _decoder(model: ModelConfig, positions: int) -> Gpt2Model.Config:
    return Gpt2Model.Config(
        dim=model.dim,
        vocab_size=model.vocab_size,
        enable_weight_tying=model.tie_embeddings,
        tok_embeddings=Embedding.Config(
            num_embeddings=model.vocab_size,
            embedding_dim=model.dim,
            param_init=_TIED_INIT if model.tie_embeddings else _INIT,
        ),
        pos_embeddings=Embedding.Config(
            num_embeddings=positions, embedding_dim=model.dim, param_init=_INIT
        ),
        norm=layer_norm(model),
        lm_head=Linear.Config(
            in_features=model.dim, out_features=model.vocab_size, param_init=_INIT
        ),
        layers=[_layer(model, positions) for _ in range(model.num_layers)],
    )


def _layer(model: ModelConfig, positions: int) -> Gpt2Block.Config:
    """Both outputs to the residual stream are scaled by its 2 L additions."""
    inward = bias_of_zeros(_INIT["weight"])
    outward = bias_of_zeros(partial(nn.init.normal_, std=_STD / (2 * model.num_layers) ** 0.5))
    no_rotation = NoPE.Config(dim=model.dim // model.num_heads, max_seq_len=positions)
    return Gpt2Block.Config(
        attention_norm=layer_norm(model),
        ffn_norm=layer_norm(model),
        attention=attention(model, no_rotation, inward, outward),
        feed_forward=feed_forward(model, "tanh", inward, outward),
    )


_NAMES: hf.Names = {
    "n_embd": "dim",
    "n_inner": "ffn_hidden_dim",
    "n_layer": "num_layers",
    "n_head": "num_heads",
    "vocab_size": "vocab_size",
    "n_positions": "max_positions",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
}

_BIASES = "use_biases"


def hf_config(model: ModelConfig, sequence_length: int) -> dict[str, Any]:  # noqa: ARG001
    """What config.json says, token ids and dtype apart."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **hf.shapes(model, _NAMES),
        "activation_function": "gelu_new",
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        # Not theirs: their GPT-2 always has biases, ours are zeros then (`_zero_biases`).
        **({} if model.biases is None else {_BIASES: model.biases}),
    }


def model_of(config: Mapping[str, Any]) -> ModelConfig:
    """The shapes that a config.json describes; the inverse of `hf_config`. Raises KeyError."""
    inner = config.get("n_inner") or 4 * config["n_embd"]  # as published, where it is left out
    return hf.model(
        {**config, "n_inner": inner},
        _NAMES,
        architecture="gpt2",
        num_kv_heads=config["n_head"],
        rope_theta=DEFAULT_ROPE_THETA,
        biases=config.get(_BIASES),
    )
