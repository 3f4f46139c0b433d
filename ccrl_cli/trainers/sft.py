"""Supervised fine-tuning through the Trainer of transformers: logits for the answers alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.loading import LoadedModel, memory_errors
from ccrl_cli.trainers.checkpoints import (
    LIBRARY_FILE,
    checkpoint_step,
    last_complete_checkpoint,
    remove_incomplete_checkpoints,
)

IGNORED = -100
"""Label of tokens that carry no loss."""


@dataclass(frozen=True, slots=True)
class SupervisedSettings:
    """How a supervised run updates weights.

    Attributes:
        method: ``lora`` trains an adapter, ``full`` every weight.
        max_steps: optimiser steps.
        learning_rate: peak learning rate.
        batch_size: examples in one optimiser step.
        micro_batch_size: examples in one forward pass.
        save_every_steps: optimiser steps between two checkpoints.
        seed: seed of the order of examples and of new adapter weights.
        scheduler: shape of the learning rate after its rise.
        warmup_ratio: share of the steps in which it rises from zero, at least one step.
    """

    method: str
    max_steps: int
    learning_rate: float
    batch_size: int
    micro_batch_size: int
    save_every_steps: int
    seed: int
    scheduler: str = "cosine"
    warmup_ratio: float = 0.05


@dataclass(frozen=True, slots=True)
class SupervisedResult:
    """What a supervised run did; `loss` is the mean over the last tenth of the steps."""

    steps: int
    loss: float
    seconds: float


class AnswerDataset(torch.utils.data.Dataset[dict[str, list[int]]]):
    """Prompts and answers as token ids."""

    def __init__(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        prompt, answer = self._pairs[index]
        return {"prompt": list(prompt), "answer": list(answer)}


class AnswerCollator:
    """Left-pads whole examples, and keeps the logits from the first answer token on."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """Return (B, L) ids and mask, (B, A) labels of the last A tokens, and A + 1 kept logits."""
        width = max(len(row["prompt"]) + len(row["answer"]) for row in rows)
        kept = max(len(row["answer"]) for row in rows)
        ids = torch.full((len(rows), width), self._pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        labels = torch.full((len(rows), kept), IGNORED)
        for place, row in enumerate(rows):
            tokens = row["prompt"] + row["answer"]
            ids[place, width - len(tokens) :] = torch.tensor(tokens)
            mask[place, width - len(tokens) :] = 1
            labels[place, kept - len(row["answer"]) :] = torch.tensor(row["answer"])
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "labels": labels,
            "logits_to_keep": kept + 1,
        }


def answer_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Return the cross entropy of the answer tokens (nats).

    Args:
        outputs: model output with logits (B, A + 1, V) of the last A + 1 places.
        labels: (B, A), `IGNORED` where there is no answer token.
        num_items_in_batch: answer tokens of the whole optimiser step; None: of this batch.
    """
    logits = outputs.logits[:, :-1].float()
    total = torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        labels.reshape(-1).to(logits.device),
        ignore_index=IGNORED,
        reduction="sum",
    )
    count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
    return total / torch.as_tensor(count).to(total.device).clamp(min=1)


class _StepCallback(TrainerCallback):
    """Tells of each step."""

    def __init__(self, on_step: Callable[[int, dict[str, float]], None]) -> None:
        self._on_step = on_step

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Pass the newest record on."""
        if logs and "loss" in logs:
            self._on_step(state.global_step, dict(logs))


ALL_LINEAR = "all-linear"


def add_adapter(
    model: Any, *, rank: int, alpha: float, modules: Sequence[str], dropout: float = 0.0
) -> Any:
    """Put a new, untrained LoRA adapter (Hu et al., 2106.09685) on a model.

    Args:
        model: any causal language model.
        rank: rank of the adapter.
        alpha: its scale is alpha / rank.
        modules: names of linear layers, or ``all-linear``: all but the output layer.
        dropout: dropout on the adapter's input.

    Raises:
        PreconditionError: the model has no layer of one of the names.
    """
    from peft import LoraConfig, get_peft_model

    everything = tuple(modules) == (ALL_LINEAR,)
    if not everything:
        _check_modules(model, modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=ALL_LINEAR if everything else list(modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def _check_modules(model: Any, modules: Sequence[str]) -> None:
    """Raise PreconditionError if the model lacks a layer that an adapter is asked for on."""
    names = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules() if name}
    missing = [name for name in modules if name not in names]
    if missing:
        from transformers.pytorch_utils import Conv1D

        linear = sorted(
            {
                name.rsplit(".", 1)[-1]
                for name, layer in model.named_modules()
                if isinstance(layer, torch.nn.Linear | Conv1D)
            }
        )
        raise PreconditionError(
            f"training.lora_target_modules: the model has no layer {', '.join(missing)} "
            f"(its linear layers are {', '.join(linear)})",
            hint=f'leave it out, or set training.lora_target_modules = ["{ALL_LINEAR}"]',
        )


def last_whole_step(work: Path) -> int:
    """Return the step of the last checkpoint that was written to its end, 0 if there is none.

    Those that a kill cut short are removed: the library would try to go on from them.
    """
    remove_incomplete_checkpoints(work, (LIBRARY_FILE,))
    last = last_complete_checkpoint(work, (LIBRARY_FILE,))
    return checkpoint_step(last) if last else 0


def train_supervised(
    loaded: LoadedModel,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    settings: SupervisedSettings,
    work: Path,
    *,
    on_step: Callable[[int, dict[str, float]], None],
    section: str = "warmup",
) -> SupervisedResult:
    """Train a model on prompts and answers; goes on from the last whole checkpoint in `work`.

    Args:
        loaded: the model, with an adapter on it when the method is ``lora``.
        pairs: token ids of prompts and of answers (the end token included).
        settings: how to train.
        work: folder of the checkpoints.
        on_step: called with the step and its record (loss, grad_norm, learning_rate).
        section: of the profile, whose ``micro_batch_size`` this is.
    """
    set_seed(settings.seed)
    model = loaded.model
    on_gpu = loaded.device == "cuda"
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=settings.max_steps,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.batch_size // settings.micro_batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=max(1, int(settings.max_steps * settings.warmup_ratio)),
        weight_decay=0.0,
        max_grad_norm=1.0,
        optim="adamw_torch",
        bf16=on_gpu and settings.method == "full",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every_steps,
        save_total_limit=1,
        save_strategy="steps",
        report_to="none",
        seed=settings.seed,
        data_seed=settings.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        use_cpu=not on_gpu,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=AnswerDataset(pairs),
        data_collator=AnswerCollator(loaded.pad_id),
        compute_loss_func=answer_loss,
        callbacks=[_StepCallback(on_step)],
    )
    from transformers.trainer_callback import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    model.train()
    first = last_whole_step(work)
    with memory_errors(f"{section}.micro_batch_size"):
        trainer.train(resume_from_checkpoint=str(work / f"checkpoint-{first}") if first else None)
    model.eval()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    tail = losses[-max(1, len(losses) // 10) :]
    return SupervisedResult(
        steps=trainer.state.global_step,
        loss=sum(tail) / max(1, len(tail)),
        seconds=time.perf_counter() - started,
    )
