"""A whole program of a script run: a small language model, DistributedDataParallel, on CPU.

    torchrun --nproc-per-node=2 examples/script/train.py 100      by hand; nothing is saved
    kubectl apply -f examples/script/run.yaml                     in a run

It learns to count modulo 97, by ones, twos or threes. The samples of a step depend on the step
alone, and the model is seeded, so a step that is done twice, on any number of ranks that divides
the batch, has the same loss.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pretrain_llm import script

VOCABULARY, STRIDES, LENGTH, BATCH = 97, 3, 8, 32


class NextToken(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.mixer = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.mixer(self.embedding(tokens))[0])


def batch(step: int, rank: int, ranks: int) -> torch.Tensor:
    """This rank's rows of the global batch of a step."""
    seeded = torch.Generator().manual_seed(step)
    first = torch.randint(VOCABULARY, (BATCH, 1), generator=seeded)
    stride = torch.randint(1, STRIDES + 1, (BATCH, 1), generator=seeded)
    rows = (first + stride * torch.arange(LENGTH + 1)) % VOCABULARY
    return rows[rank::ranks]


def agreed(*wishes: bool) -> list[bool]:
    """What any rank wishes, the same on all of them: no rank may stop or save alone."""
    words = torch.tensor(wishes, dtype=torch.int32)
    dist.all_reduce(words, op=dist.ReduceOp.MAX)
    return [bool(word) for word in words]


def save(step: int, states: dict[str, object]) -> None:
    """Data-parallel states are equal on all ranks: rank 0 writes for all."""
    if dist.get_rank() == 0:
        torch.save(states, script.begin_checkpoint(step) / "state.pt")
        script.saved(step)
    dist.barrier()


def main() -> None:
    steps = int(sys.argv[1])
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    model = NextToken()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    found: list[script.Checkpoint | None] = [script.resume_from() if rank == 0 else None]
    dist.broadcast_object_list(found)
    start = found[0]
    if start is not None:
        states = torch.load(Path(start.folder) / "state.pt", weights_only=True)
        model.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])
    done = start.step if start else 0

    parallel = DistributedDataParallel(model)
    script.ready(done)
    for step in range(done + 1, steps + 1):
        rows = batch(step, rank, ranks)
        logits = parallel(rows[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        mean = loss.detach().clone()
        dist.all_reduce(mean)
        if rank == 0:
            script.report(step, mean.item() / ranks, tokens=step * BATCH * LENGTH)
        stop, is_due = agreed(script.stop_requested(), script.should_save(step))
        if stop or is_due or step == steps:
            save(step, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        if stop and step < steps:
            script.leave()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
