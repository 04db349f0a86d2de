"""What torchtitan asks of a family, where the family is a decoder as torchtitan's Llama is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common.decoder import Decoder
from torchtitan.models.llama3.parallelize import parallelize_llama
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.protocols.state_dict_adapter import StateDictAdapter

from ...contract.config import ModelConfig


def decoder_spec(
    model: ModelConfig,
    decoder: Decoder.Config,
    adapter: type[StateDictAdapter],
    *,
    pipelining: Callable[..., Any] = pipeline_llm,
) -> ModelSpec:
    """Parallelised as Llama; only modules, names of weights and maybe the pipeline's cut differ."""
    return ModelSpec(
        name=model.architecture,
        flavor=model.fingerprint[:12],
        model=decoder,
        parallelize_fn=parallelize_llama,
        pipelining_fn=pipelining,
        post_optimizer_build_fn=None,
        state_dict_adapter=adapter,
    )
