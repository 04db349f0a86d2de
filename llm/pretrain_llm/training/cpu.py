"""Every difference between training on CPU and on an accelerator, in this one file.

torchtitan 0.3.0 knows no CPU. Through its own extension points, without a fork:
  device          torchtitan asks its device module for names, memory and streams: `enable()`
  attention       FlexAttention has no CPU backward, varlen no CPU kernel: SDPA with a mask
  reduction       gloo has no PREMUL_SUM, which FSDP2 uses to divide gradients
  initialisation  DTensor's random numbers ignore the layout on CPU meshes: the halves of every
                  sharded weight would be equal
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
import torchtitan.tools.utils

from .documents import causal_within

if TYPE_CHECKING:
    from torchtitan.protocols.model_spec import ModelSpec

Tensor = torch.Tensor


class CpuDevice(ModuleType):
    """torch.cpu plus the calls that torchtitan makes of an accelerator's module."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None: ...

    def synchronize(self, device: object = None) -> None: ...

    def empty_cache(self) -> None: ...

    def reset_peak_memory_stats(self, device: object = None) -> None: ...

    def get_device_name(self, device: object = None) -> str:  # noqa: ARG002
        return "CPU"

    def get_device_properties(self, device: object = None) -> SimpleNamespace:  # noqa: ARG002
        pages = os.sysconf("SC_PHYS_PAGES")
        return SimpleNamespace(name="CPU", total_memory=os.sysconf("SC_PAGE_SIZE") * pages)

    def memory_stats(self, device: object = None) -> dict[str, int]:  # noqa: ARG002
        """The process's peak resident memory, in torch.cuda.memory_stats' words."""
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"active_bytes.all.peak": peak_bytes, "reserved_bytes.all.peak": peak_bytes}


def enable() -> None:
    """Makes torchtitan run on CPU.

    To be called before any other module of torchtitan is imported: they copy the two names.
    """
    torchtitan.tools.utils.device_type = "cpu"
    torchtitan.tools.utils.device_module = CpuDevice("cpu")


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """In here nothing is compiled, if this is a CPU: it costs more than it gains.

    Of the masks' construction, which is compiled whatever the run says.
    """
    if torchtitan.tools.utils.device_type != "cpu":
        return contextlib.nullcontext()
    return torch.compiler.set_stance("force_eager")


def use_threads() -> None:
    """As many compute threads as the launcher asked for, or a fair share of the cores.

    A worker forked from a warm server does not read OMP_NUM_THREADS by itself any more.
    """
    wanted = int(os.environ.get("OMP_NUM_THREADS") or 0)
    share = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(wanted or max(1, share))


def adapted(spec: ModelSpec, is_blocked: bool = False) -> ModelSpec:
    """The same model with what a CPU needs instead; the parameters and their names stay.

    `is_blocked`: masks are FlexAttention's, which context parallelism cuts.
    """
    from torchtitan.config import Configurable
    from torchtitan.models.common.attention import GQAttention

    for _, attention, _, _ in spec.model.traverse(GQAttention.Config):
        if is_blocked:
            attention.inner_attention = _blocked_attention_class().Config()
        else:
            window = getattr(attention, "window", None)
            size = (-1 if window is None else window, 0)
            attention.inner_attention = _attention_class().Config(window_size=size)
    for _, part, _, _ in spec.model.traverse(Configurable.Config, recurse=True):
        if inits := getattr(part, "param_init", None):
            part.param_init = {name: layout_free(init) for name, init in inits.items()}
    spec.parallelize_fn = _with_plain_sums(spec.parallelize_fn)
    return spec


def layout_free(init: Callable[[Tensor], Any]) -> Callable[[Tensor], None]:
    """Draws the whole tensor on every rank and keeps this rank's shard of it."""
    from torch.distributed.tensor import DTensor, distribute_tensor
    from torchtitan.models.common.param_init import skip_param_init

    def initialise(tensor: Tensor) -> None:
        if init is skip_param_init or not isinstance(tensor, DTensor):
            init(tensor)
            return
        whole = torch.empty(tensor.shape, dtype=tensor.dtype)
        init(whole)
        shard = distribute_tensor(whole, tensor.device_mesh, tensor.placements, src_data_rank=None)
        tensor.to_local().copy_(shard.to_local())

    return initialise


def _with_plain_sums(parallelize: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    from torch.distributed.fsdp import FSDPModule

    @functools.wraps(parallelize)
    def parallelized(*args: Any, **kwargs: Any) -> torch.nn.Module:
        model = parallelize(*args, **kwargs)
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.set_force_sum_reduction_for_comms(True)
        return model

    return parallelized


@functools.cache
def _attention_class() -> type:
    """Made late: its base class is in a module that copies the device's name at import."""
    from torchtitan.models.common.attention import VarlenAttention, VarlenMetadata

    class DocumentAttention(VarlenAttention):
        """Causal attention within each packed document, and within the window, where one is."""

        @dataclass(kw_only=True, slots=True)
        class Config(VarlenAttention.Config):
            pass

        # Not the parent's: it looks for CUDA kernels.
        def __init__(self, config: Config) -> None:
            super(VarlenAttention, self).__init__()
            self.window_size = config.window_size

        def forward(
            self,
            q_BLNH: Tensor,  # noqa: N803  torchtitan binds these names
            k_BLNH: Tensor,  # noqa: N803
            v_BLNH: Tensor,  # noqa: N803
            *,
            attention_masks: VarlenMetadata,
            scale: float | None = None,
            enable_gqa: bool = False,
            **_: Any,
        ) -> Tensor:
            batch, length = q_BLNH.shape[:2]
            mask = document_mask(attention_masks.cu_seq_q, batch, length, self.window_size[0])
            out = torch.nn.functional.scaled_dot_product_attention(
                q_BLNH.transpose(1, 2),
                k_BLNH.transpose(1, 2),
                v_BLNH.transpose(1, 2),
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=enable_gqa,
            )
            return out.transpose(1, 2)

    return DocumentAttention


@functools.cache
def _blocked_attention_class() -> type:
    """Made late, as the other."""
    from torch.nn.attention.flex_attention import BlockMask, create_mask
    from torchtitan.models.common.attention import FlexAttention

    class BlockedAttention(FlexAttention):
        """FlexAttention's mask, also a rank's part of it, in front of SDPA."""

        @dataclass(kw_only=True, slots=True)
        class Config(FlexAttention.Config):
            pass

        def forward(
            self,
            q_BLNH: Tensor,  # noqa: N803  torchtitan binds these names
            k_BLNH: Tensor,  # noqa: N803
            v_BLNH: Tensor,  # noqa: N803
            *,
            attention_masks: BlockMask,
            scale: float | None = None,
            enable_gqa: bool = False,
            **_: Any,
        ) -> Tensor:
            sizes = (q_BLNH.shape[0], 1, q_BLNH.shape[1], k_BLNH.shape[1])
            out = torch.nn.functional.scaled_dot_product_attention(
                q_BLNH.transpose(1, 2),
                k_BLNH.transpose(1, 2),
                v_BLNH.transpose(1, 2),
                attn_mask=create_mask(attention_masks.mask_mod, *sizes, device="cpu"),
                scale=scale,
                enable_gqa=enable_gqa,
            )
            return out.transpose(1, 2)

    return BlockedAttention


def document_mask(starts: Tensor, batch: int, length: int, window: int = -1) -> Tensor | None:
    """The mask of `causal_within` from where documents start in the flattened batch, and its end;
    of the tokens before its own, a token sees `window`, or all with -1.

    None where every row is one document, seen whole: plain causal attention, which is faster.
    """
    is_windowed = 0 <= window < length - 1
    if starts.numel() == batch + 1 and not is_windowed:
        return None
    is_first = torch.zeros(batch * length, dtype=torch.int32)
    is_first[starts[:-1].long()] = 1
    mask = causal_within(is_first.cumsum(0).view(batch, length))
    return (
        mask & torch.ones(length, length, dtype=torch.bool).triu(-window) if is_windowed else mask
    )
