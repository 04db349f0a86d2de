"""What the user writes. A field is here only if something acts on it.

Descriptions become the CRD's and docs/api.md's; bounds become its schema. Rules that
span fields are in `rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from pretrain_llm.contract.config import ARCHITECTURES, DEFAULT_ROPE_THETA

from .base import MAX_STEPS, ApiModel, Name
from .recovery import Recovery
from .schedule import Schedule, Segment
from .script import Script
from .soup import Soup

Architecture = Literal[ARCHITECTURES]  # type: ignore[valid-type]  # one row a model file
StageName = Annotated[
    str, Field(min_length=1, max_length=16, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
Path = Annotated[str, Field(min_length=1, max_length=1024)]
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
Quantity = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    Field(max_length=32, pattern=_QUANTITY),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maxLength": 32,
            "pattern": _QUANTITY,
        }
    ),
]
DEFAULT_TEXT_FIELD = "text"
KubernetesObject = dict[str, Any]  # passed on as it is; the API server checks it with the pod
StepsOrAuto = Annotated[
    Annotated[int, Field(ge=1, le=MAX_STEPS)] | Literal["auto"],
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "minimum": 1,
            "maximum": MAX_STEPS,
            "pattern": "^auto$",
        }
    ),
]


class Resources(ApiModel):
    requests: dict[str, Quantity] = Field({}, max_length=16, description="As in a container.")
    limits: dict[str, Quantity] = Field({}, max_length=16, description="As in a container.")


class EnvVar(ApiModel):
    name: str = Field(min_length=1, max_length=128, description="Name of the variable.")
    value: str | None = Field(None, max_length=4096, description="Its value.")
    value_from: KubernetesObject | None = Field(
        None, description="Reference to a Secret, ConfigMap or field, as in a container."
    )


class PodTemplate(ApiModel):
    """Overrides for the pods of one stage; they are merged over the operator's own defaults."""

    image: str | None = Field(None, min_length=1, max_length=512, description="Container image.")
    image_pull_secrets: tuple[str, ...] = Field(
        (), max_length=8, description="Names of Secrets with registry credentials."
    )
    node_selector: dict[str, str] = Field({}, max_length=16, description="Labels of the nodes.")
    tolerations: tuple[KubernetesObject, ...] = Field((), max_length=32, description="As in a pod.")
    env: tuple[EnvVar, ...] = Field((), max_length=64, description="Further environment variables.")
    resources: Resources = Field(Resources(), description="Requests and limits.")
    volumes: tuple[KubernetesObject, ...] = Field((), max_length=32, description="As in a pod.")
    volume_mounts: tuple[KubernetesObject, ...] = Field(
        (), max_length=32, description="As in a pod."
    )
    annotations: dict[str, str] = Field(
        {}, max_length=16, description="On the pods, for example to attach networks."
    )


class ClaimTemplate(ApiModel):
    size: Quantity = Field(description="Requested size, for example 500Gi.")
    storage_class_name: str | None = Field(
        None, max_length=253, description="Storage class; the cluster's default if left out."
    )


class Storage(ApiModel):
    """Where data, checkpoints and exports live. It outlives the run."""

    claim_name: str = Field(
        min_length=1, max_length=253, description="PersistentVolumeClaim, ReadWriteMany."
    )
    create: ClaimTemplate | None = Field(
        None, description="Create the claim if it is not there. It is kept when the run is deleted."
    )


class Model(ApiModel):
    """Shapes, not the name of a preset: a new size needs no code."""

    architecture: Architecture = Field(description="Model family.")
    dim: int = Field(ge=8, le=65536, description="Width of the residual stream.")
    num_layers: int = Field(ge=1, le=1024, description="Transformer blocks.")
    num_heads: int = Field(ge=1, le=1024, description="Attention heads; divides dim.")
    num_kv_heads: int | None = Field(
        None, ge=1, le=1024, description="Key and value heads; divides numHeads. Default: numHeads."
    )
    ffn_hidden_dim: int = Field(ge=8, le=1_048_576, description="Width inside the feed-forward.")
    vocab_size: int = Field(
        ge=256, le=1_048_576, description="Rows of the embedding; at least the tokenizer's."
    )
    rope_theta: float = Field(
        DEFAULT_ROPE_THETA, gt=0, le=1e12, description="Base of the rotary embedding."
    )
    norm_eps: float = Field(1e-5, gt=0, le=1, description="Epsilon of the norms.")
    tie_embeddings: bool = Field(False, description="Share the embedding with the output layer.")
    max_positions: int | None = Field(
        None,
        ge=8,
        le=1_048_576,
        description="gpt2 only: rows of its table of positions. Default: training.sequenceLength.",
    )
    biases: bool | None = Field(
        None, description="gpt2 only: whether matrices and norms have biases. Default: true."
    )


class TokenizerTraining(ApiModel):
    algorithm: Literal["BPE"] = Field("BPE", description="Byte-level BPE.")
    vocab_size: int = Field(ge=260, le=1_048_576, description="Tokens, special ones included.")


class Tokenizer(ApiModel):
    """Exactly one of the two."""

    train: TokenizerTraining | None = Field(None, description="Train one on the run's own text.")
    path: Path | None = Field(None, description="Folder on the storage that has a tokenizer.json.")


class Source(ApiModel):
    name: Name = Field(description="Unique name of the source.")
    path: Path = Field(
        description="File, folder or URL. A relative path is below the storage's mount point."
    )
    format: Literal["jsonl", "parquet", "text", "chat"] = Field(
        "jsonl",
        description="text: a folder of text files, each one document; chat: JSON Lines or parquet "
        "with a list of turns, messages, in each row. See docs/data.md.",
    )
    text_field: str = Field(
        DEFAULT_TEXT_FIELD,
        min_length=1,
        max_length=128,
        description="Field or column that has the text.",
    )
    weight: float | None = Field(
        None,
        ge=0,
        le=1e9,
        description="Share of the samples, relative to the other sources' weights: all have one, "
        "or none; 0: read only where the curriculum says so. Default: every token once an epoch, "
        "whatever its source.",
    )


class Data(ApiModel):
    sources: tuple[Source, ...] = Field(
        min_length=1, max_length=64, description="What to train on."
    )
    held_out_fraction: float = Field(
        0.005, gt=0, le=0.5, description="Documents kept back to measure bits per byte."
    )
    template: PodTemplate = Field(PodTemplate(), description="Overrides for the stage's pod.")


Rate = Annotated[float, Field(gt=0, le=10)]


class Optimizer(ApiModel):
    name: Literal["AdamW", "Muon"] = Field(
        "AdamW", description="Muon: of the matrices of the blocks, and AdamW of all else."
    )
    learning_rate: Rate = Field(description="Peak rate.")
    adamw_learning_rate: Rate | None = Field(
        None, description="With Muon: peak rate of what AdamW takes, which learningRate is not for."
    )
    embedding_learning_rate: Rate | None = Field(
        None, description="Peak rate of the embedding. Default: that of all AdamW takes."
    )
    output_learning_rate: Rate | None = Field(
        None, description="Peak rate of the output layer. Default: that of all AdamW takes."
    )
    scalar_learning_rate: Rate | None = Field(
        None,
        description="nanochat_2026 only: peak rate of the scalars on its residual stream. Default: "
        "that of all AdamW takes.",
    )
    momentum: float | None = Field(None, ge=0, lt=1, description="Muon's. Default: 0.95.")
    weight_decay: float = Field(0.1, ge=0, le=10, description="Decoupled weight decay.")
    adamw_weight_decay: float | None = Field(
        None, ge=0, le=10, description="With Muon: of what AdamW takes. Default: weightDecay."
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="First moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Second moment.")
    epsilon: float = Field(1e-8, gt=0, le=1, description="Epsilon of AdamW.")
    no_weight_decay: tuple[Literal["embeddings", "norms", "biases", "scalars"], ...] = Field(
        (), max_length=4, description="Parameters that do not decay."
    )


class SkipStep(ApiModel):
    """No update in a step whose loss or gradient norm stands out from those before."""

    window: int = Field(128, ge=8, le=10_000, description="Steps that it is compared with.")
    deviations: float = Field(
        6.0, gt=0, le=1000, description="Standard deviations above their mean that are let through."
    )


class WandbKey(ApiModel):
    name: str = Field(min_length=1, max_length=253, description="Secret in the run's namespace.")
    key: str = Field("WANDB_API_KEY", min_length=1, max_length=253, description="Key in it.")


class Wandb(ApiModel):
    project: str = Field(min_length=1, max_length=128, description="W&B project.")
    mode: Literal["online", "offline"] = Field("offline", description="offline: files only.")
    api_key_secret: WandbKey | None = Field(None, description="Needed for mode online.")


class Training(ApiModel):
    sequence_length: int = Field(ge=8, le=1_048_576, description="Tokens.")
    global_batch_size: int = Field(
        ge=1, le=1_048_576, description="Sequences a step; constant whatever the world size."
    )
    local_batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Sequences a rank takes at once. Default: no accumulation.",
    )
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Steps, or set tokens.")
    tokens: float | None = Field(
        None, ge=1, le=1e16, description="Tokens (22e9 is fine), rounded up to whole steps."
    )
    optimizer: Optimizer = Field(description="Optimiser.")
    schedule: Schedule = Field(Schedule(), description="Learning rate over the steps.")
    gradient_clip_norm: float = Field(1.0, gt=0, le=1e6, description="Largest gradient norm.")
    z_loss_weight: float = Field(
        0.0, ge=0, le=1, description="Of the squared log of the softmax's normaliser, in the loss."
    )
    skip_step: SkipStep | None = Field(None, description="Left out: every step has its update.")
    curriculum: tuple[Segment, ...] = Field(
        (), max_length=16, description="What changes at later steps, in their order; needs steps."
    )
    precision: Literal["bfloat16", "float32"] = Field("bfloat16", description="Of the compute.")
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none", description="What is computed again in the backward pass."
    )
    compile: bool = Field(False, description="torch.compile each block.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Weights and the order of samples.")
    wandb: Wandb | None = Field(None, description="Log to Weights & Biases.")


class Nodes(ApiModel):
    count: int = Field(ge=1, le=16384, description="Node slots in the world.")
    min: int | None = Field(
        None,
        ge=1,
        le=16384,
        description="The run goes on with as few where no replacement comes, and grows again."
        " Default: count.",
    )
    spares: int = Field(0, ge=0, le=64, description="Node slots that wait, ready, for a loss.")
    devices_per_node: int = Field(1, ge=1, le=64, description="Workers a node.")
    device_resource: str = Field(
        "nvidia.com/gpu", max_length=253, description="Extended resource; empty: train on CPU."
    )
    template: PodTemplate = Field(PodTemplate(), description="Overrides for training pods.")


class Parallelism(ApiModel):
    """The product is nodes.count x nodes.devicesPerNode."""

    data_parallel_replicate: int = Field(1, ge=1, le=16384, description="HSDP replicas.")
    data_parallel_shard: int = Field(-1, ge=-1, le=131072, description="FSDP2; -1: the rest.")
    tensor_parallel: int = Field(1, ge=1, le=64, description="Divides numHeads and numKVHeads.")
    pipeline_parallel: int = Field(1, ge=1, le=256, description="At most numLayers.")
    context_parallel: int = Field(
        1,
        ge=1,
        le=64,
        description="Ranks that share the tokens of a sequence, for long ones: sequenceLength is"
        " a multiple of 128 x this.",
    )

    @property
    def model_ranks(self) -> int:
        """Ranks that take the same samples."""
        return self.tensor_parallel * self.pipeline_parallel * self.context_parallel


class MemoryCheckpoint(ApiModel):
    """Between the checkpoints on the storage: shards in a tmpfs of each training pod, and a copy
    in the next node's. Lost with the pods; with nodes.count 1 there is nobody to hold the copy, so
    that only restarts of workers gain by it.
    """

    interval: int = Field(
        5, ge=1, le=MAX_STEPS, description="Steps; less than those between the others."
    )
    size_limit: Quantity | None = Field(
        None,
        description="Of each pod's tmpfs, which counts as the pod's memory. Four times a node's"
        " share of weights and optimiser state is enough; six times with interval 1."
        " Default: the pod's memory limit.",
    )


class Checkpoint(ApiModel):
    interval: StepsOrAuto = Field(
        1000,
        description="Steps between checkpoints; auto: those that lose least, by what saves cost and"
        " how often the run is interrupted.",
    )
    min_interval: int = Field(10, ge=1, le=MAX_STEPS, description="Fewest steps, with auto.")
    max_interval: int = Field(10_000, ge=1, le=MAX_STEPS, description="Most steps, with auto.")
    keep_latest: int = Field(3, ge=2, le=1000, description="Verified checkpoints to keep.")
    keep_steps: tuple[Annotated[int, Field(ge=0, le=MAX_STEPS)], ...] = Field(
        (),
        max_length=1000,
        description="Further steps to save, and to keep for good; 0: the weights before the first.",
    )
    keep_every: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Its multiples too are saved and kept for good."
    )
    memory: MemoryCheckpoint | None = Field(
        None, description="Checkpoints in memory, every few steps; left out: none."
    )


class Export(ApiModel):
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="Of weights.")
    soup: Soup | None = Field(
        None, description="Export the mean of several checkpoints. Default: the newest one."
    )
    template: PodTemplate = Field(PodTemplate(), description="Overrides for the stage's pod.")


class PostTraining(ApiModel):
    name: StageName = Field(description="Unique name of the stage; not last or export.")
    method: Literal["SFT"] = Field("SFT", description="Supervised fine-tuning with TRL.")
    dataset_path: Path | None = Field(
        None, description="JSON Lines of {messages: [...]}. Default: made from the run's own text."
    )
    steps: int = Field(ge=1, le=MAX_STEPS, description="Optimiser steps.")
    batch_size: int = Field(8, ge=1, le=65536, description="Conversations a step.")
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak rate.")
    max_length: int | None = Field(
        None,
        ge=8,
        le=1_048_576,
        description="Tokens of a conversation. Default: the sequence length of training.",
    )
    template: PodTemplate = Field(
        PodTemplate(),
        description="Overrides for the stage's pod; without effect once the stage has finished.",
    )


class Serving(ApiModel):
    replicas: int = Field(1, ge=0, le=1024, description="vLLM pods.")
    devices: int = Field(1, ge=0, le=64, description="Devices a replica (tensor parallel); 0: CPU.")
    source: StageName = Field(
        "last", alias="from", description="last, export, or the name of a post-training stage."
    )
    max_model_length: int | None = Field(
        None, ge=16, le=16_777_216, description="Longest context. Default: the sequence length."
    )
    arguments: tuple[Annotated[str, Field(max_length=1024)], ...] = Field(
        (), max_length=64, description="Further arguments of the vLLM server."
    )
    template: PodTemplate = Field(PodTemplate(), description="Overrides for the server's pods.")


class AnySpec(ApiModel):
    """A run. Either `script`, or `model`, `tokenizer`, `data` and `training`."""

    suspend: bool = Field(False, description="Save, stop and free the devices until false again.")
    storage: Storage = Field(description="Where data, checkpoints and exports live.")
    script: Script | None = Field(None, description="Run a program of your own as the workers.")
    model: Model | None = Field(None, description="Shapes of the model.")
    tokenizer: Tokenizer | None = Field(None, description="Train one, or load one.")
    data: Data | None = Field(None, description="Text to train on.")
    training: Training | None = Field(None, description="How to train.")
    nodes: Nodes = Field(description="What to train on.")
    parallelism: Parallelism = Field(Parallelism(), description="How the model is spread.")
    checkpoint: Checkpoint = Field(Checkpoint(), description="When to save, what to keep.")
    recovery: Recovery = Field(Recovery(), description="How many faults to bear.")
    export: Export = Field(Export(), description="The Hugging Face directory.")
    post_training: tuple[PostTraining, ...] = Field((), max_length=16, description="In this order.")
    serving: Serving | None = Field(None, description="Serve with vLLM; left out: do not.")


class RunSpec(AnySpec):
    """A run that torchtitan trains."""

    model: Model
    tokenizer: Tokenizer
    data: Data
    training: Training


class ScriptSpec(AnySpec):
    """A run of a program of the user's."""

    script: Script
