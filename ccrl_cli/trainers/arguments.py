"""The arguments that reach TRL: every option that moves numbers, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from trl import GRPOConfig

from ccrl_cli.errors import UsageError
from ccrl_cli.trainers.base import GrpoSettings


def accumulation_steps(settings: GrpoSettings, processes: int) -> int:
    """Return the forward passes of each process in one optimiser step.

    Raises:
        UsageError: the step cannot be shared out evenly.
    """
    prompts, passes = settings.prompts_per_step, settings.micro_batch_size
    if prompts % processes:
        raise UsageError(
            f"{processes} processes cannot share training.prompts_per_step = {prompts} evenly",
            hint=f"set it to a multiple of {processes}",
        )
    rows = prompts // processes * settings.num_generations
    if rows % passes:
        raise UsageError(
            f"{rows} rollouts a process are no multiple of training.micro_batch_size = {passes}",
            hint=f"set it to a divisor of {rows}",
        )
    return rows // passes


def grpo_arguments(
    settings: GrpoSettings,
    work: Path,
    reward_weights: Sequence[float],
    *,
    device: str,
    processes: int = 1,
) -> GRPOConfig:
    """Return TRL's arguments, each that moves numbers given by name.

    Args:
        settings: options of the run.
        work: folder of the checkpoints.
        reward_weights: weights of the reward functions.
        device: ``cuda`` or ``cpu``.
        processes: processes that share each step.

    Raises:
        UsageError: the step cannot be shared out evenly.
    """
    accumulation = accumulation_steps(settings, processes)
    return GRPOConfig(
        output_dir=str(work),
        max_steps=settings.num_steps,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation,
        num_generations=settings.num_generations,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler,
        warmup_steps=math.ceil(settings.lr_warmup_ratio * settings.num_steps),
        weight_decay=settings.weight_decay,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        max_grad_norm=settings.max_grad_norm,
        optim=settings.optimizer,
        beta=settings.beta,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        delta=None,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards,
        num_iterations=settings.num_iterations,
        importance_sampling_level="token",
        multi_objective_aggregation=settings.multi_objective_aggregation,
        mask_truncated_completions=settings.mask_truncated_completions,
        top_entropy_quantile=1.0,
        sync_ref_model=False,
        disable_dropout=False,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        max_completion_length=settings.max_completion_tokens,
        reward_weights=list(reward_weights),
        shuffle_dataset=False,
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=False,
        fp16=False,
        use_vllm=False,
        use_liger_kernel=False,
        log_completions=False,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.saving_steps,
        save_total_limit=max(2, settings.keep_checkpoints),  # one may be half written
        report_to="none",
        seed=settings.seed,
        data_seed=settings.seed,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        use_cpu=device != "cuda",
        ddp_backend=None if processes == 1 else ("nccl" if device == "cuda" else "gloo"),
        ddp_find_unused_parameters=False,
    )
