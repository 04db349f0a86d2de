"""Muon on FSDP2's shards: momentum, orthogonalised a whole matrix at a time.

Sources: Jordan et al. 2024 (Muon), its quintic iteration and its scale for tall matrices; Liu et
al. 2025 (Muon is Scalable for LLM Training), decoupled weight decay. torch.optim.Muon computes the
same, but of a DTensor's shard; torchtitan's DistMuon runs on CUDA alone and takes queries, keys and
values for one matrix, while here each is its own.

A matrix is gathered on one rank of its shard group, another for each, orthogonalised there and sent
back. HSDP's replicas each do the same. Never used for embeddings, norms or biases, and not with
tensor parallelism: `preconditions` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al.
_ITERATIONS = 5
_EPSILON = 1e-7


class HeadGroups(NamedTuple):
    """A wqkv that has, for each key and value head, its query heads, the key and the value."""

    queries: int  # query heads a group
    width: int  # of a head


class Muon(Optimizer):
    """`fused` says which parameters hold several matrices. All are DTensors of two dimensions."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        fused: Mapping[Tensor, HeadGroups],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        self._fused = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            matrices = [param for param in group["params"] if param.grad is not None]
            for together in _one_a_rank(matrices):
                directions = self._directions(together, group["momentum"])
                for param, direction in zip(together, directions, strict=True):
                    local = param.to_local()
                    local.mul_(1 - group["lr"] * group["weight_decay"])
                    local.add_(direction.view_as(local), alpha=-group["lr"])

    def _directions(self, together: list[DTensor], momentum: float) -> list[Tensor]:
        """This rank's shard of each matrix's direction; the n-th matrix is rank n's to compute."""
        updates = [self._update(param, momentum) for param in together]
        group = _shard_group(together[0])
        rank = dist.get_rank(group)
        own = together[rank] if rank < len(together) else None
        sizes = _shard_elements(own, group)
        received = _exchanged(updates, sizes, group)
        if own is not None:
            received = scaled_directions(received.view(own.shape), self._fused.get(own)).flatten()
        back = _exchanged(received.split(sizes), [update.numel() for update in updates], group)
        return list(back.to(updates[0].dtype).split([update.numel() for update in updates]))

    def _update(self, param: DTensor, momentum: float) -> Tensor:
        """Nesterov's, of this rank's shard. The average is as torch.optim.Muon's."""
        assert param.grad is not None
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param.grad)
        gradient, buffer = param.grad.to_local(), state["momentum_buffer"].to_local()
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def scaled_directions(update: Tensor, heads: HeadGroups | None) -> Tensor:
    """The orthogonalised update, each of its matrices scaled by its shape: sqrt(rows / columns) of
    one that is taller than wide."""
    if heads is None:
        return orthogonalised(update) * max(1.0, update.size(0) / update.size(1)) ** 0.5
    queries, width, columns = *heads, update.size(1)
    groups = update.view(-1, queries + 2, width, columns)
    parts = groups.split((queries, 1, 1), dim=1)
    directions = [
        scaled_directions(part.reshape(-1, columns), None).view_as(part) for part in parts
    ]
    return torch.cat(directions, dim=1).view_as(update)


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of the matrix's singular value decomposition, its singular values between 0.5 and
    1.5 (Jordan et al.)."""
    a, b, c = _COEFFICIENTS
    x = matrix.T if matrix.size(0) > matrix.size(1) else matrix
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if matrix.size(0) > matrix.size(1) else x


def _one_a_rank(matrices: list[DTensor]) -> Iterator[list[DTensor]]:
    """As many at a time as the shard group has ranks."""
    at_once = dist.get_world_size(_shard_group(matrices[0])) if matrices else 1
    for start in range(0, len(matrices), at_once):
        yield matrices[start : start + at_once]


def _exchanged(sent: Iterable[Tensor], sizes: list[int], group: dist.ProcessGroup) -> Tensor:
    """Sends the n-th tensor to rank n and returns what all ranks sent here, `sizes` elements from
    each, one after the other. On CUDA in bfloat16, which is what is computed in there."""
    flat = [tensor.flatten() for tensor in sent]
    dtype = torch.bfloat16 if flat[0].is_cuda else torch.float32
    given = torch.cat(flat).to(dtype)
    ranks = dist.get_world_size(group)
    given_sizes = [tensor.numel() for tensor in flat] + [0] * (ranks - len(flat))
    got_sizes = sizes + [0] * (ranks - len(sizes))
    got = given.new_empty(sum(got_sizes))
    dist.all_to_all_single(got, given, got_sizes, given_sizes, group=group)
    return got


def _shard_elements(param: DTensor | None, group: dist.ProcessGroup) -> list[int]:
    """How many each rank of the group has: FSDP2 splits rows evenly, the last ranks have fewer."""
    ranks = dist.get_world_size(group)
    if param is None:
        return [0] * ranks
    rows, columns = param.shape
    most = -(-rows // ranks)
    return [max(0, min(most, rows - rank * most)) * columns for rank in range(ranks)]


def _shard_group(param: DTensor) -> dist.ProcessGroup:
    (axis,) = (axis for axis, kind in enumerate(param.placements) if kind.is_shard(dim=0))
    return param.device_mesh.get_group(axis)
