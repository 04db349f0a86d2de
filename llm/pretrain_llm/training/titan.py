"""The adapter: a RunConfig becomes torchtitan's Trainer, its numbers become our reports.

Beside this file only models/, cpu.py, loader.py and checkpointing.py import torchtitan, all through
its extension points: Trainer, BaseDataLoader, MetricsProcessor and CheckpointManager are
subclassed, nothing is patched but what cpu.py says. Decides nothing about the run.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import torch
import torch.distributed as dist
import torchtitan.trainer
from torch.distributed.tensor import DTensor
from torchtitan.components.loss import CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.config.configs import (
    CompileConfig,
    DebugConfig,
    ParallelismConfig,
    TrainingConfig,
)
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.activation_checkpoint import FullAC, SelectiveAC
from torchtitan.tools import utils

from .. import models
from ..contract import exit_codes, symptoms
from ..contract.config import RunConfig, ScheduleConfig, SkipStepConfig
from ..contract.config import TrainingConfig as Training
from ..contract.curriculum import Segment, segment_of, segments
from ..contract.reports import PERSISTENT, OwnTimeReport, RestoredReport, StepReport
from ..errors import NonFiniteError
from ..faults import hook
from . import cpu, groups, mesh
from .agreement import Agreement
from .checkpointing import VerifiedCheckpoints
from .inputs import Inputs, identity
from .loader import PackedLoader, check_has_next
from .loss import ZLoss
from .optimizers import optimizers
from .own_time import OwnTime
from .reporting import report
from .schedulers import Schedulers
from .skip_step import SkipStep


class Trainer(torchtitan.trainer.Trainer):
    """Reports when it is ready to step, and stops at a step boundary when it is asked to."""

    @dataclass(kw_only=True, slots=True)
    class Config(torchtitan.trainer.Trainer.Config):
        gradient_clip_norm: float
        skip_step: SkipStepConfig | None = None
        segment: Segment

    def __init__(self, config: Config) -> None:
        self._skip_step: SkipStep | None = None
        super().__init__(config)
        if config.skip_step is not None:
            self._skip_step = SkipStep(config.skip_step, config.gradient_clip_norm, self)
            self.optimizers.gate = self._skip_step

        self._segment = config.segment

    def init_distributed(self) -> ParallelDims:
        parallel_dims = super().init_distributed()
        self._agreement = Agreement(groups.between_steps())
        self._ready = False
        self._own_time: OwnTime | None = None
        return parallel_dims

    def train_step(
        self, data_iterator: Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]
    ) -> None:
        """Raises NonFiniteError, and whatever torch raises."""
        try:
            super().train_step(data_iterator)
        except RuntimeError as error:
            if symptoms.symptom(str(error)) != symptoms.NON_FINITE:
                raise
            raise NonFiniteError(str(error), step=self.step) from error
        if self._own_time and (seconds := self._own_time.stepped()) is not None:
            report(own_time=OwnTimeReport(self.step, seconds, time.time()))

    def should_continue_training(self) -> bool:
        """Called at every step boundary, the first time right after the checkpoint was loaded."""
        is_first, self._ready = not self._ready, True
        if is_first:
            check_has_next(self._segment, self.step)
            self.lr_schedulers.apply()
            if self._segment.forgets_at(self.step):
                self.optimizers.forget()
            self._agreement.listen()
            timed = () if self.config.compile.enable else tuple(self._blocks())
            self._own_time = OwnTime(timed, utils.device_type) if timed else None
            self._faults = hook.hook(self._scale_weights, timed)
            self.model_parts[-1].register_forward_hook(lambda *_: self.dataloader.read_on())
            self.metrics_processor.start_clock()
            source = self.checkpointer.restored_from
            skipped = self.dataloader.skipped
            report(restored=RestoredReport(self.step, time.time(), source, skipped))
        agreed = self._agreement.agreed()
        self.checkpointer.pace(agreed.interval)
        if is_first and self.checkpointer.restored_from != PERSISTENT:
            self.checkpointer.save(self.step)  # not on the volume, though it may have to be
        if not super().should_continue_training():
            # Ends train() here: what follows there only sleeps 2 s for the other ranks, and
            # closing the checkpoints waits for them.
            raise SystemExit(exit_codes.OK)
        if agreed.stop or self.step == self._segment.end:
            self._save_and_leave()
        self._agreement.post()
        if self._faults is not None:
            self._faults.boundary()
        return True

    def post_dataloading_process(self, *batch: Any, **named: Any) -> Any:
        """Also cuts a sequence's tokens and masks into the parts of a context-parallel group."""
        with cpu.uncompiled() if self.parallel_dims.cp_enabled else contextlib.nullcontext():
            return super().post_dataloading_process(*batch, **named)

    def forward_backward_step(self, **batch: Any) -> torch.Tensor:
        loss = super().forward_backward_step(**batch)
        if self._skip_step is not None:
            self._skip_step.add(loss)
        return loss

    def state_dict(self) -> dict[str, Any]:
        own = {} if self._skip_step is None else {"skip_step": self._skip_step.gate.saved}
        return super().state_dict() | own

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._skip_step is not None:
            self._skip_step.gate.restore(state_dict["skip_step"])

    def _blocks(self) -> Iterator[torch.nn.Module]:
        for part in self.model_parts:
            yield from part.layers.values()

    def _save_and_leave(self) -> None:
        self.checkpointer.save(self.step, last_step=True)
        self.checkpointer.close()
        raise SystemExit(exit_codes.SAVED)

    @torch.no_grad()
    def _scale_weights(self, factor: float) -> None:
        """This rank's part of them, for an injected fault."""
        for part in self.model_parts:
            for weight in part.parameters():
                local = weight.to_local() if isinstance(weight, DTensor) else weight
                local.mul_(factor)


class Metrics(MetricsProcessor):
    """torchtitan's own loggers, and one StepReport a step from a rank that has the loss."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        segment: Segment
        loss_rank: int
        skips_bad_steps: bool

    def __init__(self, config: Config, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        name = self.device_memory_monitor.device_name
        self._peak_flops = known_peak_flops(name, self.gpu_peak_flops)
        self._clock = time.monotonic()

    def start_clock(self) -> None:
        """A step's time counts from here on."""
        self._clock = time.monotonic()

    def log(
        self,
        step: int,
        global_avg_loss: float,
        global_max_loss: float,
        grad_norm: float,
        extra_metrics: dict[str, Any] | None = None,
    ) -> None:
        # The same on all ranks; torchtitan checks the loss only. skipStep has left such a step out.
        if not math.isfinite(grad_norm) and not self.config.skips_bad_steps:
            words = f"Gradient norm is not finite (grad_norm={grad_norm}) at step {step}"
            raise NonFiniteError(words, step=step)
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)
        seconds, self._clock = time.monotonic() - self._clock, time.monotonic()
        if dist.get_rank() == self.config.loss_rank:
            report(step=self._step_report(step, global_avg_loss, grad_norm, seconds))

    def _step_report(
        self, step: int, loss: float, gradient_norm: float, seconds: float
    ) -> StepReport:
        tokens = self.config.segment.run.tokens_per_step
        return StepReport(
            step=step,
            loss=loss,
            tokens=self.config.segment.consumed(step).tokens,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            time=time.time(),
            gradient_norm=gradient_norm,
            mfu=self._mfu(tokens / seconds),
        )

    def _mfu(self, tokens_per_second: float) -> float | None:
        if self._peak_flops is None:
            return None
        world_peak_flops = self._peak_flops * self.parallel_dims.world_size
        return self.num_flops_per_token * tokens_per_second / world_peak_flops


def known_peak_flops(device_name: str, titans: float) -> float | None:
    """Dense bf16 FLOP/s of one device; torchtitan says an A100's for all that it does not know."""
    a100_flops = 312e12
    is_guess = titans == a100_flops and "A100" not in device_name
    return None if is_guess or utils.device_type == "cpu" else titans


def trainer_config(run: RunConfig, inputs: Inputs, finished_steps: int = 0) -> Trainer.Config:
    """Of the segment that the step after `finished_steps` is in, and of no other."""
    segment, whole = segment_of(run, finished_steps + 1), run
    run, training = segment.run, segment.run.training
    spec = models.architecture(run.model.architecture).model_spec(
        run.model, training.sequence_length
    )
    is_blocked = run.parallelism.context_parallel > 1
    return Trainer.Config(
        model_spec=cpu.adapted(spec, is_blocked) if run.nodes.device == "cpu" else spec,
        hf_assets_path=str(inputs.tokenizer),
        dump_folder=str(run.layout.logs),
        loss=_loss(run),
        optimizer=optimizers(training.optimizer),
        gradient_clip_norm=training.gradient_clip_norm,
        skip_step=training.skip_step,
        lr_scheduler=_schedule(training.schedule, segment),
        training=_training(training),
        dataloader=PackedLoader.Config(
            folder=str(inputs.folder),
            index=inputs.index,
            segments=segments(whole),
            segment=segment,
        ),
        segment=segment,
        metrics=_metrics(run, segment),
        parallelism=_parallelism(run),
        checkpoint=_checkpoint(whole, inputs, segment),
        activation_checkpoint=_ACTIVATION_CHECKPOINTING[training.activation_checkpointing](),
        compile=CompileConfig(enable=training.compile),
        debug=DebugConfig(seed=training.seed),
    )


_ACTIVATION_CHECKPOINTING: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "selective": SelectiveAC.Config,
    "full": FullAC.Config,
}


def _loss(run: RunConfig) -> CrossEntropyLoss.Config:
    vocabulary, weight = run.model.vocab_size, run.training.z_loss_weight
    if weight:
        return ZLoss.Config(global_vocab_size=vocabulary, weight=weight)
    return CrossEntropyLoss.Config(global_vocab_size=vocabulary)


def _schedule(schedule: ScheduleConfig, segment: Segment) -> Schedulers.Config:
    return Schedulers.Config(
        start=segment.schedule_start,
        total_steps=schedule.steps or segment.schedule_end - segment.schedule_start,
        warmup_steps=schedule.warmup_steps,
        decay_ratio=schedule.decay_fraction,
        decay_type=schedule.decay,
        min_lr_factor=schedule.min_learning_rate_fraction,
        weight_decay=schedule.weight_decay,
    )


def _training(training: Training) -> TrainingConfig:
    return TrainingConfig(
        local_batch_size=training.local_batch_size,
        global_batch_size=training.global_batch_size,
        seq_len=training.sequence_length,
        # Clipped by SkipStep, where there is one.
        max_norm=math.inf if training.skip_step else training.gradient_clip_norm,
        steps=training.steps,
        # Weights and optimizer state stay float32; bfloat16 is what FSDP2 computes in.
        mixed_precision_param=training.precision,
        disable_cuda_graphs=True,  # pipeline parallelism cannot use them
    )


def _parallelism(run: RunConfig) -> ParallelismConfig:
    parallelism = run.parallelism
    return ParallelismConfig(
        data_parallel_replicate_degree=parallelism.data_parallel_replicate,
        data_parallel_shard_degree=parallelism.data_parallel_shard,
        tensor_parallel_degree=parallelism.tensor_parallel,
        pipeline_parallel_degree=parallelism.pipeline_parallel,
        context_parallel_degree=parallelism.context_parallel,
    )


def _metrics(run: RunConfig, segment: Segment) -> Metrics.Config:
    return Metrics.Config(
        log_freq=1,
        disable_color_printing=True,
        enable_wandb=run.training.wandb is not None,
        save_tb_folder="wandb",  # torchtitan's name for the folder of any logger
        segment=segment,
        loss_rank=mesh.loss_rank(run.parallelism),
        skips_bad_steps=run.training.skip_step is not None,
    )


def _checkpoint(run: RunConfig, inputs: Inputs, segment: Segment) -> VerifiedCheckpoints.Config:
    return VerifiedCheckpoints.Config(
        enable=True,
        folder=str(run.layout.checkpoints),
        async_mode="async",
        last_save_model_only=False,  # more training can go on from the last one
        initial_load_model_only=False,
        keep_latest_k=0,
        policy=run.checkpoint,
        identity=identity(run, inputs),
        mesh=astuple(run.parallelism),
        segment=segment,
    )
