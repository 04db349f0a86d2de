"""The configuration that every pod of a run reads, rendered by the operator from the spec.

Field names are the spec's, so that `run.json` reads like the YAML. All defaults are the API's:
here every field is present.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from . import codec
from .layout import Layout

# One file each in pretrain_llm/models; a test holds the two lists together.
ARCHITECTURES = ("llama", "olmo2", "gpt_neox", "smollm3", "gpt2", "nanochat", "nanochat_2026")
UNGROUPED = ("gpt_neox", "gpt2")  # every attention head has its own keys and values
LEARNED_POSITIONS = ("gpt2",)  # a table of positions in place of a rotation
BIASES_OPTIONAL = ("gpt2",)
SCALED = ("nanochat_2026",)  # has trained scalars on the residual stream
UNSPLIT = ("nanochat_2026",)  # every rank has all of the model and of its sequences
UNSERVED = ("nanochat_2026",)  # vLLM can run neither its class nor one like it
DEFAULT_ROPE_THETA = 10000.0


@dataclass(frozen=True)
class ModelConfig:
    architecture: str
    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_hidden_dim: int
    vocab_size: int
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool
    max_positions: int | None = None  # rows of the table, of LEARNED_POSITIONS only
    biases: bool | None = None  # of BIASES_OPTIONAL only; None: as the family has them

    @property
    def fingerprint(self) -> str:
        """Hex digest of the shapes: a checkpoint of another model has another one."""
        return digest(self)


@dataclass(frozen=True)
class TokenizerConfig:
    """Exactly one of the two is set."""

    train_vocab_size: int | None = None  # train a byte-level BPE of this size
    path: str | None = None  # folder with a tokenizer.json to load


@dataclass(frozen=True)
class SourceConfig:
    name: str
    path: str  # file, folder or URL that fsspec opens
    format: str  # jsonl | parquet | text | chat
    text_field: str
    weight: float | None = (
        None  # share of the samples, relative to the others'; all have one or none
    )

    @property
    def is_chat(self) -> bool:
        """Whether it has conversations, and no text."""
        return self.format == "chat"


@dataclass(frozen=True)
class DataConfig:
    sources: tuple[SourceConfig, ...]
    held_out_fraction: float

    @property
    def weights(self) -> dict[str, float] | None:
        """By name of the sources that are read; None where all text is one stream."""
        found = {s.name: s.weight for s in self.sources if s.weight}
        return found or None


@dataclass(frozen=True)
class OptimizerConfig:
    name: str  # AdamW | Muon (matrices of blocks; AdamW the rest)
    learning_rate: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    adamw_learning_rate: float | None = None  # with Muon: of what it does not take
    embedding_learning_rate: float | None = None
    output_learning_rate: float | None = None
    momentum: float | None = None  # Muon's
    no_weight_decay: tuple[str, ...] = ()  # embeddings | norms | biases | scalars
    adamw_weight_decay: float | None = None  # with Muon: of what it does not take
    scalar_learning_rate: float | None = None  # of SCALED only


@dataclass(frozen=True)
class SkipStepConfig:
    window: int  # steps
    deviations: float  # standard ones, above the window's mean


@dataclass(frozen=True)
class ScheduleConfig:
    warmup_steps: int
    decay: str  # linear | cosine | sqrt
    decay_fraction: float  # of all its steps; the rate is constant before (WSD)
    min_learning_rate_fraction: float
    steps: int | None = None  # of the whole schedule; None: those that it spans
    weight_decay: str | None = None  # cosine: to 0 over the schedule; None: constant


@dataclass(frozen=True)
class WandbConfig:
    project: str
    mode: str  # online | offline


@dataclass(frozen=True)
class WeightConfig:
    name: str  # of a source
    weight: float


@dataclass(frozen=True)
class SegmentConfig:
    """What changes after a step; None: it stays as it was. contract.curriculum applies it."""

    from_step: int  # finished steps at which it begins
    sequence_length: int | None = None
    global_batch_size: int | None = None
    local_batch_size: int | None = None
    rope_theta: float | None = None
    learning_rate: float | None = None
    schedule: ScheduleConfig | None = None
    weights: tuple[WeightConfig, ...] = ()  # of the sources that are read; empty: as they were
    seed: int | None = None  # of the order of samples that begins here
    reset_optimizer: bool | None = None  # True: its state begins anew


@dataclass(frozen=True)
class TrainingConfig:
    sequence_length: int  # tokens
    global_batch_size: int  # sequences
    local_batch_size: int  # sequences a data-parallel rank takes at once
    steps: int
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    gradient_clip_norm: float
    precision: str  # float32 | bfloat16
    activation_checkpointing: str  # none | selective | full
    compile: bool
    seed: int
    wandb: WandbConfig | None = None
    z_loss_weight: float = 0.0
    skip_step: SkipStepConfig | None = None
    curriculum: tuple[SegmentConfig, ...] = ()  # by from_step


@dataclass(frozen=True)
class NodesConfig:
    count: int
    spares: int
    devices_per_node: int
    device: str  # cpu | cuda
    min: int | None = None  # a round may have as few; None: count


@dataclass(frozen=True)
class ParallelismConfig:
    """All degrees are positive; their product is the world size."""

    data_parallel_replicate: int
    data_parallel_shard: int
    tensor_parallel: int
    pipeline_parallel: int
    context_parallel: int = 1  # ranks that share a sequence's tokens

    @property
    def model_ranks(self) -> int:
        """Ranks that take the same samples."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel

    @property
    def shards(self) -> int:
        """Ranks that FSDP2 splits a weight among: those of a context-parallel group, too."""
        return self.data_parallel_shard * self.context_parallel


@dataclass(frozen=True)
class MemoryConfig:
    interval: int  # steps


@dataclass(frozen=True)
class CheckpointConfig:
    keep_latest: int
    interval: int | None = None  # steps; None: as `intervals` says, within the two bounds
    min_interval: int = 10
    max_interval: int = 10_000
    keep_steps: tuple[int, ...] = ()
    keep_every: int | None = None
    memory: MemoryConfig | None = None

    def keeps(self, step: int) -> bool:
        """Whether this step is saved whatever the interval, and its checkpoint never deleted."""
        every = self.keep_every
        return step in self.keep_steps or (every is not None and step > 0 and step % every == 0)


@dataclass(frozen=True)
class IngredientConfig:
    """A checkpoint of a soup."""

    weight: float  # relative to the others'
    run: str | None = None  # of the same volume; None: this one
    step: int | None = None  # None: the newest


@dataclass(frozen=True)
class ExportConfig:
    dtype: str  # float32 | bfloat16 | float16
    soup: tuple[IngredientConfig, ...] = ()  # of which the model is the mean; empty: the newest


@dataclass(frozen=True)
class PostTrainingConfig:
    name: str
    method: str  # SFT
    steps: int
    batch_size: int
    learning_rate: float
    max_length: int  # tokens
    dataset_path: str | None = None  # JSON Lines of {"messages": [...]}; None: from the corpus


@dataclass(frozen=True)
class ScriptConfig:
    command: tuple[str, ...]
    steps: int  # that the program says it makes
    working_directory: str | None = None  # in the pod; None: the image's


@dataclass(frozen=True)
class CommonConfig:
    """What every run has, whoever trains it."""

    run: str
    volume: str  # mount point of the run's storage
    nodes: NodesConfig
    checkpoint: CheckpointConfig

    @property
    def layout(self) -> Layout:
        return Layout(self.volume, self.run)

    def located(self, path: str) -> str:
        """Where a path of the spec is in a pod: a relative one is below the volume; URLs stay."""
        return path if "://" in path else str(PurePosixPath(self.volume) / path)


@dataclass(frozen=True)
class ScriptRunConfig(CommonConfig):
    """A run whose workers are a program of the user's. docs/script-engine.md"""

    script: ScriptConfig

    @property
    def total_steps(self) -> int:
        return self.script.steps


@dataclass(frozen=True)
class RunConfig(CommonConfig):
    """A run that torchtitan trains."""

    model: ModelConfig
    tokenizer: TokenizerConfig
    data: DataConfig
    training: TrainingConfig
    parallelism: ParallelismConfig
    export: ExportConfig
    post_training: tuple[PostTrainingConfig, ...] = field(default_factory=tuple)

    @property
    def total_steps(self) -> int:
        return self.training.steps

    @property
    def tokens_per_step(self) -> int:
        return self.training.global_batch_size * self.training.sequence_length


AnyConfig = RunConfig | ScriptRunConfig


def digest(value: object) -> str:
    """SHA-256 of the canonical JSON form."""
    return hashlib.sha256(codec.to_json(value).encode()).hexdigest()


def load(path: str) -> RunConfig:
    """Of a run that torchtitan trains. Raises OSError, codec.DecodeError."""
    return codec.from_json(RunConfig, _text(path))


def load_any(path: str) -> AnyConfig:
    """Raises OSError, codec.DecodeError."""
    return parsed(_text(path))


def parsed(text: str) -> AnyConfig:
    """Raises codec.DecodeError."""
    if codec.has_key(text, "script"):
        return codec.from_json(ScriptRunConfig, text)
    return codec.from_json(RunConfig, text)


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
