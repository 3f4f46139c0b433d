"""GRPO (Shao et al., 2402.03300) through TRL's public surface, over a curriculum."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.errors import PartialError
from ccrl_cli.models.loading import LoadedModel, memory_errors
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask
from ccrl_cli.trainers.probe import KlProbe
from ccrl_cli.trainers.rollouts import Rewards, Rollouts
from ccrl_cli.trainers.seeding import seed_libraries

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` is used on purpose

SAMPLER_FILE = "curriculum.json"
"""State of the sampler, inside a checkpoint."""


def draws_dataset(sampler: CurriculumSampler, task: TrainTask) -> Dataset:
    """Return a data set whose row i is the curriculum's draw i, made when it is asked for.

    So the library's own sampler only has to count, and prefetching or skipping rows is harmless.
    """

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[str]]:
        drawn = [task.inputs[sampler.draw(int(index))] for index in batch["draw"]]
        return {
            "prompt": [row.prompt for row in drawn],
            "input_id": [row.input_id for row in drawn],
        }

    dataset = Dataset.from_dict({"draw": list(range(len(sampler)))})
    dataset.set_transform(rows)
    return dataset


def grpo_arguments(
    settings: GrpoSettings, work: Path, reward_weights: list[float], *, device: str
) -> GRPOConfig:
    """Return TRL's arguments, each that moves numbers given by name.

    Args:
        settings: options of the run.
        work: folder of the checkpoints.
        reward_weights: weights of the reward functions.
        device: ``cuda`` or ``cpu``.
    """
    rows = settings.prompts_per_step * settings.num_generations
    accumulation = rows // settings.micro_batch_size
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
        reward_weights=reward_weights,
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
        save_steps=settings.save_every_steps,
        save_total_limit=settings.keep_checkpoints,
        report_to="none",
        seed=settings.seed,
        data_seed=settings.seed,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        use_cpu=device != "cuda",
    )


class WeightedGrpoTrainer(GRPOTrainer):
    """GRPO with a weight for each input on its advantages.

    A weight on the reward would cancel where advantages are divided by their group's spread.
    """

    input_weights: Mapping[str, float]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the policy too: beside a reference adapter the library loads that one alone."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        policy = model if model is not None else self.model
        if "ref" in getattr(policy, "peft_config", {}):
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            policy.set_adapter("default")

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        weights = [self.input_weights[row["input_id"]] for row in inputs]
        output["advantages"] = output["advantages"] * torch.tensor(
            weights, dtype=output["advantages"].dtype, device=output["advantages"].device
        )
        return output


class _Telemetry(TrainerCallback):
    """Writes the record of each step, saves the sampler, stops on numbers that are not finite."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Make one record of a step out of the library's numbers and ours."""
        if logs and "loss" in logs:
            self._run.record(state.global_step, logs)

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Put the sampler's state into the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._run.save_sampler(folder)


class _Run:
    """One training: the trainer, and what is measured around it."""

    def __init__(
        self,
        loaded: LoadedModel,
        task: TrainTask,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        hooks: TrainHooks,
        work: Path,
    ) -> None:
        self.sampler, self.settings, self.hooks = sampler, settings, hooks
        self.rollouts = Rollouts(loaded, settings)
        self.rewards = Rewards(task, settings, loaded.end_ids)
        self.probe = KlProbe(loaded, task.probe_prompts, settings)
        self.trainer = WeightedGrpoTrainer(
            model=loaded.model,
            reward_funcs=self.rewards.functions(),
            args=grpo_arguments(settings, work, self.rewards.weights(), device=loaded.device),
            train_dataset=draws_dataset(sampler, task),
            processing_class=loaded.tokenizer,
            rollout_func=self.rollouts,
            callbacks=[_Telemetry(self)],
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.input_weights = {
            key: row.weight if settings.use_weights else 1.0 for key, row in task.inputs.items()
        }
        self.seconds = {"generate": 0.0, "score": 0.0, "train": 0.0, "probe": 0.0}
        self._clock = time.perf_counter()

    def record(self, step: int, logs: Mapping[str, float]) -> None:
        """Hand out the record of a step; raises PartialError on a loss that is not finite."""
        drawn = [input_id for input_id, _ in self.rewards.groups]
        for input_id, spread in self.rewards.groups:
            self.sampler.observe(input_id, spread)
        self.rewards.groups.clear()
        generation_step = (step - 1) // self.settings.num_iterations
        schedule = self.sampler.schedule
        parts = self._split_seconds()
        record: dict[str, Any] = {
            "step": step,
            "inputs": drawn,
            "num_open": schedule.num_open(generation_step),
            "open_share": schedule.num_open(generation_step) / schedule.num_inputs,
            "loss": logs["loss"],
            "gradient_norm": logs.get("grad_norm"),
            "learning_rate": logs.get("learning_rate"),
            "entropy": logs.get("entropy"),
            **self.rewards.statistics.take(),
            **{f"seconds_{name}": round(value, 4) for name, value in parts.items()},
            "tokens_per_second": round(self._tokens / max(1e-9, sum(parts.values())), 1),
        }
        if "kl" in logs:
            record["kl_rollouts"] = logs["kl"]
        if self.probe.is_due(step):
            started = time.perf_counter()
            record["kl"] = self.probe.measure(self.trainer)
            record["seconds_probe"] = round(time.perf_counter() - started, 4)
            self.seconds["probe"] += time.perf_counter() - started
        self._clock = time.perf_counter()
        self.hooks.on_step(record)
        numbers = [logs["loss"], logs.get("grad_norm", 0.0)]
        if not all(math.isfinite(float(number)) for number in numbers):
            raise PartialError(
                f"training step {step} gave a loss or gradient that is not finite",
                hint="lower training.learning_rate; the last checkpoint is kept",
            )

    def _split_seconds(self) -> dict[str, float]:
        """Split the time since the last record into generate, score and train."""
        total = time.perf_counter() - self._clock
        parts = {"generate": self.rollouts.seconds, "score": self.rewards.seconds}
        parts["train"] = max(0.0, total - sum(parts.values()))
        self._tokens = self.rollouts.tokens
        self.rollouts.seconds = self.rewards.seconds = 0.0
        self.rollouts.tokens = 0
        for name, value in parts.items():
            self.seconds[name] += value
        return parts

    def save_sampler(self, folder: Path) -> None:
        """Write the sampler's state beside a checkpoint's weights."""
        place = folder / SAMPLER_FILE
        fresh = place.with_suffix(".new")
        fresh.write_text(json.dumps(self.sampler.state_dict()), encoding="utf-8")
        fresh.replace(place)


def last_complete_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that holds everything a resume needs, else None."""
    found = sorted(
        (p for p in work.glob("checkpoint-*") if p.name.split("-")[-1].isdigit()),
        key=lambda p: int(p.name.split("-")[-1]),
        reverse=True,
    )
    for folder in found:
        if (folder / SAMPLER_FILE).is_file() and (folder / "trainer_state.json").is_file():
            return folder
    return None


def train_grpo(
    loaded: LoadedModel,
    task: TrainTask,
    sampler: CurriculumSampler,
    settings: GrpoSettings,
    work: Path,
    hooks: TrainHooks,
) -> TrainResult:
    """Train the adapter of a model; goes on from the last complete checkpoint in `work`.

    Args:
        loaded: model with a trainable LoRA adapter named ``default``.
        task: inputs, reward and probe.
        sampler: the curriculum's draws.
        settings: options of GRPO.
        work: folder of the checkpoints.
        hooks: where records go.

    Raises:
        PartialError: the loss or its gradient is not finite; checkpoints are kept.
    """
    seed_libraries(settings.seed)
    run = _Run(loaded, task, sampler, settings, hooks, work)
    checkpoint = last_complete_checkpoint(work)
    resumed_from = 0
    if checkpoint is not None:
        resumed_from = int(checkpoint.name.split("-")[-1])
        sampler.load_state_dict(json.loads((checkpoint / SAMPLER_FILE).read_text(encoding="utf-8")))
        hooks.on_resume(resumed_from)
    with memory_errors("training.micro_batch_size"):
        run.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    run.trainer.model.eval()
    return TrainResult(run.trainer.state.global_step, resumed_from, dict(run.seconds))
