"""Supervised fine-tuning with TRL: the loss is on what the assistant says, and nothing else."""

from __future__ import annotations

import torch
from datasets import Dataset
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl import SFTConfig, SFTTrainer

from .. import hub  # noqa: F401  registers what transformers lacks
from ..errors import InputError
from ..tokenizer import CHAT_TEMPLATE, TRAINING_CHAT_TEMPLATE, TURN_END
from .stage import Job


def train(job: Job) -> dict[str, float]:
    """Writes the trained model into the job's output. Raises InputError."""
    tokenizer = AutoTokenizer.from_pretrained(job.source)
    if tokenizer.chat_template == CHAT_TEMPLATE:
        tokenizer.chat_template = TRAINING_CHAT_TEMPLATE
    # Trained in single precision whatever the file has, and saved as it came.
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype=torch.float32)
    _check_length(job, model)
    trainer = SFTTrainer(
        model=model,
        args=_arguments(job),
        train_dataset=Dataset.from_list([{"messages": turns} for turns in job.conversations]),
        processing_class=tokenizer,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    _save(trainer.model, tokenizer, job)
    return {
        "lossFirst": losses[0],
        "lossLast": losses[-1],
        "examples": len(job.conversations),
        "steps": trainer.state.global_step,
    }


def _arguments(job: Job) -> SFTConfig:
    cuda = job.device == "cuda"
    return SFTConfig(
        output_dir=str(job.output),
        max_steps=job.settings.steps,
        per_device_train_batch_size=job.settings.batch_size,
        learning_rate=job.settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, job.settings.steps // 10),
        max_length=job.settings.max_length,
        assistant_only_loss=True,
        seed=job.seed,
        use_cpu=not cuda,
        bf16=cuda,
        activation_checkpointing=cuda,  # costs time and saves memory, of which a CPU has enough
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _check_length(job: Job, model: PreTrainedModel) -> None:
    limit = model.config.max_position_embeddings
    if job.settings.max_length > limit:
        raise InputError(
            f"longer than the {limit} tokens that the model was trained on",
            field=f"{job.field}.maxLength",
            value=job.settings.max_length,
            remedy=f"Set it to {limit} or less.",
        )


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, job: Job) -> None:
    """A server stops at the end of a turn, and at the end of a text."""
    stops = {tokenizer.eos_token_id, tokenizer.get_vocab().get(TURN_END)} - {None}
    model.generation_config.eos_token_id = sorted(stops)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.to(AutoConfig.from_pretrained(job.source).dtype)
    model.save_pretrained(job.output)
