"""What is trained: a small Llama on CPU, published recipes on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hack.recipes import book
from pretrain_llm.contract import config
from pretrain_llm.contract.config import RunConfig

from .worker import BARE, OURS

GPU_RECIPES = (
    "nanollama-nano",
    "nanollama-micro",
    "nanollama-mini",
    "nanollama-small",
    "llama-1b-50b",
)
# Tokens a second on one H100, as nanollama's README has them.
PUBLISHED_TOKENS_PER_SECOND = {
    "nanollama-nano": 1_037_000,
    "nanollama-micro": 598_000,
    "nanollama-mini": 289_000,
    "nanollama-small": 162_000,
}
_ADAMW = config.OptimizerConfig("AdamW", 3e-4, 0.1, 0.9, 0.95, 1e-8)
_STEPS = 1_000_000  # more than any measurement makes


@dataclass(frozen=True)
class Case:
    name: str
    run: RunConfig
    ranks: int = 1
    block_steps: int = 1  # at a turn
    pairs: int = 1  # for each that is asked for
    system: str = OURS  # against bare torchtitan; itself: what the measurement can tell apart
    long: str | None = None  # the case whose steps are longer, and nothing else is different

    @property
    def is_control(self) -> bool:
        return self.system == BARE


def cpu_cases() -> tuple[Case, ...]:
    one, two = "one rank", "two ranks, FSDP2"
    return (
        Case(one, _on_cpu(1)),
        Case(two, _on_cpu(2), ranks=2),
        Case(f"{one}, short steps", _short(_on_cpu(1)), pairs=12, long=one),
        Case(f"{two}, short steps", _short(_on_cpu(2)), ranks=2, pairs=12, long=two),
        Case("bare torchtitan twice, one rank, short steps", _short(_on_cpu(1)), pairs=12,
             system=BARE),
    )  # fmt: skip


def _short(run: RunConfig) -> RunConfig:
    """Steps of a tenth of a second: turns that are closer see more of the same noise."""
    training = run.training
    shorter = replace(
        training,
        sequence_length=training.sequence_length // 4,
        global_batch_size=training.global_batch_size // training.local_batch_size,
        local_batch_size=1,
    )
    return replace(run, training=shorter)


def gpu_cases() -> tuple[Case, ...]:
    return tuple(Case(name, on_one_gpu(name), block_steps=10) for name in GPU_RECIPES)


def on_one_gpu(name: str) -> RunConfig:
    """A recipe's share of one device: its local batch, not accumulated; with AdamW, since bare
    torchtitan 0.3.0 has no Muon for one device."""
    run = book.entry(name).plan.config
    training = replace(
        run.training,
        global_batch_size=run.training.local_batch_size,
        steps=_STEPS,
        optimizer=_ADAMW,
        skip_step=None,
        z_loss_weight=0.0,
        curriculum=(),
        wandb=None,
    )
    nodes = replace(run.nodes, count=1, devices_per_node=1, spares=0, min=None)
    mesh = config.ParallelismConfig(1, 1, 1, 1)
    return replace(
        run,
        training=training,
        data=replace(run.data, sources=()),
        nodes=nodes,
        parallelism=mesh,
        checkpoint=replace(run.checkpoint, interval=_STEPS, memory=None, keep_steps=()),
        post_training=(),
    )


def _on_cpu(ranks: int) -> RunConfig:
    """nanollama-nano's form, small enough for steps of about half a second on one core."""
    run = on_one_gpu("nanollama-nano")
    model = replace(
        run.model,
        dim=256,
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        ffn_hidden_dim=704,
        vocab_size=4096,
    )
    training = replace(
        run.training,
        sequence_length=256,
        global_batch_size=4 * ranks,
        local_batch_size=4,
        precision="float32",
        compile=False,
    )
    return replace(
        run,
        model=model,
        training=training,
        nodes=replace(run.nodes, devices_per_node=ranks, device="cpu"),
        parallelism=config.ParallelismConfig(1, ranks, 1, 1),
    )
