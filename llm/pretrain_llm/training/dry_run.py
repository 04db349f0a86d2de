"""One rank of a run at its true mesh, on one CPU: nothing is sent, nothing is computed.

    echo '{"run": {…}, "rank": 0}' | PYTHONPATH=llm python -m pretrain_llm.training.dry_run

torchtitan's fake backend gives the process group its true size; fake tensors (shapes, types and
layouts without storage) take the place of real ones. The model is built, parallelised and given
its optimizer by the Trainer that a pod runs, and makes one whole step. So a mesh, a shape or an
option that torchtitan refuses shows in seconds, whatever the run would take. Not seen here:
memory, kernels, the network, and attention across packed documents.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import on_cpu  # noqa: F401  first: it makes torchtitan fit the device

# isort: split
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.pipelining._utils import _StageMeta, extract_tensor_metas
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.tokenizer import BaseTokenizer
from torchtitan.config import TORCH_DTYPE_MAP, Configurable
from torchtitan.distributed import utils as dist_utils
from torchtitan.models.common.attention import VarlenMetadata
from torchtitan.models.common.param_init import skip_param_init

from ..contract import codec
from ..contract.config import RunConfig
from ..data.index import ShardIndex
from . import mesh, titan
from .inputs import Inputs

Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Task:
    run: RunConfig
    rank: int


@dataclass(frozen=True)
class DryRun:
    """What one rank has and did."""

    rank: int
    world_size: int
    parameters: int  # of this rank's pipeline stage, unsharded
    local_parameters: int  # on this rank
    microbatches: int  # forward and backward passes in the step


def dry_run(run: RunConfig, rank: int) -> DryRun:
    """One step of one rank. Raises whatever torchtitan raises for what it cannot train.

    Once a process: the process group stays.
    """
    world_size = mesh.world_size(run.parallelism)
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), NGPU=str(world_size))
    os.environ.setdefault("LOCAL_RANK", "0")
    config = trainer_config(run)
    with contextlib.ExitStack() as stack:
        _fake_once_parallel(config.model_spec, stack)
        trainer = config.build()
        trainer.train_step(iter(trainer.dataloader))
    parameters = [part for model in trainer.model_parts for part in model.parameters()]
    return DryRun(
        rank,
        world_size,
        sum(parameter.numel() for parameter in parameters),
        sum(_local(parameter).numel() for parameter in parameters),
        trainer.gradient_accumulation_steps * trainer.num_pipeline_parallel_microbatches,
    )


def _fake_once_parallel(spec: Any, stack: contextlib.ExitStack) -> None:
    """Meshes are real, ranks are looked up in them; the weights that come after are fake."""

    def fake_after(parallelize: Callable[..., Any]) -> Callable[..., Any]:
        def parallelized(*args: Any, **kwargs: Any) -> Any:
            result = parallelize(*args, **kwargs)
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            return result

        return parallelized

    spec.parallelize_fn = fake_after(spec.parallelize_fn)
    # Fake tensors tell cpu:0, as torchtitan has it, from cpu.
    spec.pipelining_fn = _with(spec.pipelining_fn, device=torch.device("cpu"))


def _with(function: Callable[..., Any], **fixed: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: function(*args, **{**kwargs, **fixed})


def _local(tensor: Any) -> Any:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class Trainer(titan.Trainer):
    """The pods' Trainer without what only a real step has: numbers to log, files to write."""

    @dataclass(kw_only=True, slots=True)
    class Config(titan.Trainer.Config):
        pass

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if not self.parallel_dims.cp_enabled:  # whose masks look at no values
            for part in self.model_parts:
                part.get_attention_masks = one_document_a_row
        if self.parallel_dims.pp_enabled:
            stage = self.pp_schedule._stage
            stage._user_meta = self._stage_shapes(stage.is_first, stage.is_last)

    def init_distributed(self) -> Any:
        return super(titan.Trainer, self).init_distributed()

    def _stage_shapes(self, is_first: bool, is_last: bool) -> Any:
        """What stages would tell each other first, and a fake process group cannot carry."""
        config, tensor_parallel = self.config, self.parallel_dims.tp
        sequences = config.parallelism.pipeline_parallel_microbatch_size
        length = config.training.seq_len // self.parallel_dims.cp
        tokens = torch.zeros(sequences, length, dtype=torch.int64)
        dtype = TORCH_DTYPE_MAP[config.training.mixed_precision_param]
        hidden = torch.zeros(
            sequences, length // tensor_parallel, self.model_config.dim, dtype=dtype
        ).requires_grad_()
        logits = torch.zeros(
            sequences, length, self.model_config.vocab_size // tensor_parallel, dtype=dtype
        ).requires_grad_()
        return _StageMeta(
            inputs=extract_tensor_metas((tokens if is_first else hidden,)),
            outputs=extract_tensor_metas((logits if is_last else hidden,)),
        )

    def train_step(self, data_iterator: Iterator[Batch]) -> None:
        """torchtitan's, but for the loss: a fake tensor has no number to report."""
        self.optimizers.zero_grad()
        for _ in range(self.gradient_accumulation_steps):
            batches = [next(data_iterator) for _ in range(self.num_pipeline_parallel_microbatches)]
            inputs, labels = [list(column) for column in zip(*batches, strict=True)]
            is_pipeline = self.parallel_dims.pp_enabled
            self.forward_backward_step(
                input_dict=inputs if is_pipeline else inputs[0],
                labels=labels if is_pipeline else labels[0],
                global_valid_tokens=torch.tensor(1),
            )
        dist_utils.clip_grad_norm_(
            [parameter for model in self.model_parts for parameter in model.parameters()],
            self.config.training.max_norm,
            foreach=True,
            pp_mesh=self.parallel_dims.get_optional_mesh("pp"),
        )
        self.optimizers.step()
        self.lr_schedulers.step()


def one_document_a_row(positions: torch.Tensor) -> VarlenMetadata:
    """Where documents start must be known without looking at a fake tensor's values."""
    batch, length = positions.shape
    starts = torch.arange(0, (batch + 1) * length, length, dtype=torch.int32)
    return VarlenMetadata(starts, starts, length, length)


class Zeros(BaseDataLoader):
    """Batches of the right shape, for ever."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        pass

    def __init__(
        self,
        config: Config,  # noqa: ARG002
        *,
        seq_len: int,
        local_batch_size: int,
        **_: Any,
    ) -> None:
        self._shape = (local_batch_size, seq_len)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            tokens = torch.zeros(self._shape, dtype=torch.int64)
            positions = torch.arange(self._shape[1]).expand(self._shape).contiguous()
            yield {"input": tokens, "positions": positions}, torch.zeros_like(tokens)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class NoTokenizer(BaseTokenizer):
    """Nothing is encoded here."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseTokenizer.Config):
        pass

    def __init__(self, config: Config, **_: Any) -> None:  # noqa: ARG002
        super().__init__()

    def encode(self, *args: Any, **kwargs: Any) -> list[int]:
        raise NotImplementedError

    def decode(self, *args: Any, **kwargs: Any) -> str:
        raise NotImplementedError

    def get_vocab_size(self) -> int:
        raise NotImplementedError


def trainer_config(run: RunConfig) -> Trainer.Config:
    """As in a pod, for CPU, uncompiled, without files and without what looks at a loss."""
    plain = dataclasses.replace(
        run,
        nodes=dataclasses.replace(run.nodes, device="cpu"),
        training=dataclasses.replace(run.training, compile=False, wandb=None, skip_step=None),
    )
    index = ShardIndex(2, run.model.vocab_size, 0, "", (), (), 0)
    config = titan.trainer_config(plain, Inputs(Path(), index, Path(), ""))
    fields = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    _draw_nothing(config.model_spec)
    fields["dataloader"] = Zeros.Config()
    fields["tokenizer"] = NoTokenizer.Config()
    fields["checkpoint"] = CheckpointManager.Config(enable=False)
    fields["metrics"] = dataclasses.replace(config.metrics, enable_wandb=False)
    fields["comm"] = dataclasses.replace(config.comm, mode="fake_backend")
    return Trainer.Config(**fields)


def _draw_nothing(spec: Any) -> None:
    for _, part, _, _ in spec.model.traverse(Configurable.Config, recurse=True):
        if inits := getattr(part, "param_init", None):
            part.param_init = dict.fromkeys(inits, skip_param_init)


def main() -> None:
    """A line of {run, rank} on stdin, a line of DryRun on stdout; ends at the first that fails."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for line in sys.stdin:
        task = codec.from_json(Task, line)
        child = os.fork()  # the fake process group stays for a process's life
        if not child:
            print(codec.to_json(dry_run(task.run, task.rank)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
