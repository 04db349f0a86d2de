"""Process groups over all ranks for tensors on the CPU.

Each gloo group costs a thread that wakes up 100 times a second (gloo's loop waits for 10 ms at
most) and some 10 ms of every start. So there is one for the step loop, beside torchtitan's for its
saves.
"""

from __future__ import annotations

import functools

import torch.distributed as dist


def between_steps() -> dist.ProcessGroup:
    """For the step loop's thread alone: there, all ranks call in the same order.

    The world's own where that has gloo, as on CPU; a second one beside NCCL.
    """
    world = dist.group.WORLD
    assert world is not None, "called before init_process_group"
    return _between_steps(world)


@functools.lru_cache(maxsize=1)
def _between_steps(world: dist.ProcessGroup) -> dist.ProcessGroup:
    has_gloo = "cpu:gloo" in dist.get_backend_config(world).split(",")
    return world if has_gloo else dist.new_group(backend="gloo")
