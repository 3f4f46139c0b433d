"""GRPO (Shao et al., 2402.03300) through TRL, over a curriculum.

By TRL's public arguments, and the private methods that `trainers.private` lists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import GRPOTrainer

from ccrl_cli.core.advantages import has_signal
from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.core.replay import ReplayDraws, place_in_step
from ccrl_cli.models.loading import LoadedModel, memory_errors
from ccrl_cli.trainers import ranks
from ccrl_cli.trainers.arguments import grpo_arguments
from ccrl_cli.trainers.averaging import WeightAverage
from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask
from ccrl_cli.trainers.checkpoints import (
    checkpoint_step,
    last_complete_checkpoint,
    read_state,
    remove_incomplete_checkpoints,
    write_state,
)
from ccrl_cli.trainers.guard import Guard
from ccrl_cli.trainers.probe import Probe, start_weights
from ccrl_cli.trainers.recording import StepRecorder
from ccrl_cli.trainers.rollouts import Decoder, Rewards, Rollouts, merged_decoder
from ccrl_cli.trainers.sanity import (
    check_first_batch,
    check_first_gradient,
    gradients_are_finite,
)
from ccrl_cli.trainers.seeding import seed_libraries

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # `rollout_func` is used on purpose


def draws_dataset(sampler: CurriculumSampler, task: TrainTask, settings: GrpoSettings) -> Dataset:
    """Return a data set whose row i is the run's prompt i, drawn when it is asked for.

    So the library's own sampler only has to count, and prefetching or skipping rows is harmless.
    The last rows of each step are labelled source inputs, where replay is asked for.
    """
    replays = ReplayDraws(tuple(task.replay), settings.seed)
    size = settings.prompts_per_step

    def rows(batch: Mapping[str, list[int]]) -> dict[str, list[str]]:
        drawn = []
        # A step is drawn as a whole, at the same time in every process: what is observed between
        # two draws may change the later one.
        last = max(int(row) for row in batch["draw"]) // size
        sampler.draw((last + 1) * (size - settings.replayed) - 1)
        for row in batch["draw"]:
            replayed, number = place_in_step(int(row), size, settings.replayed)
            key = replays.draw(number) if replayed else sampler.draw(number)
            drawn.append(task.find(key)[0])
        return {
            "prompt": [row.prompt for row in drawn],
            "input_id": [row.input_id for row in drawn],
        }

    steps = -(-settings.num_steps // settings.num_iterations)
    dataset = Dataset.from_dict({"draw": list(range(steps * size))})
    dataset.set_transform(rows)
    return dataset


class WeightedGrpoTrainer(GRPOTrainer):
    """GRPO with a weight for each input on its advantages, and a look at the first batch.

    A weight on the reward would cancel where advantages are divided by their group's spread. A
    group whose rewards are equal but for rounding has no advantage. What it overrides and calls of
    TRL's private surface is listed in `trainers.private`.
    """

    weight_of: Callable[[str], float]
    totals: Callable[[], list[float]]
    check_rows: int = 0
    begins_at_reference: bool = True
    first_batch: Mapping[str, float] = {}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the policy too: beside a reference adapter the library loads that one alone."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        policy = model if model is not None else self.model
        if "ref" in getattr(policy, "peft_config", {}):
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
            policy.set_adapter("default")

    def set_reference(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take the KL term to other weights than those that training begins with.

        Args:
            weights: of the adapter ``default``, by parameter name.
        """
        self.begins_at_reference = False
        model = self.accelerator.unwrap_model(self.model)
        if "ref" in model.peft_config:
            for name, value in weights.items():
                model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(value)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.rollout_func.input_ids = [row["input_id"] for row in inputs]
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.check_rows and self.state.global_step == 0:
            sampled = [
                None if rollout.off_policy else rollout.sample.logprobs
                for rollout in self.rollout_func.drawn
            ]
            seen = output if self.begins_at_reference else {**output, "ref_per_token_logps": None}
            self.first_batch = check_first_batch(self, seen, sampled, self.check_rows)
        totals, size = self.totals(), self.num_generations
        lively = [has_signal(totals[first : first + size]) for first in range(0, len(totals), size)]
        weights = [
            self.weight_of(row["input_id"]) * lively[place // size]
            for place, row in enumerate(inputs)
        ]
        output["advantages"] = output["advantages"] * torch.tensor(
            weights, dtype=output["advantages"].dtype, device=output["advantages"].device
        )
        return output


class _Watcher(TrainerCallback):
    """Ties the library's events to the run: records, checkpoints, checks of gradients."""

    def __init__(self, run: _Run) -> None:
        self._run = run

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Remember the policy that rollouts are drawn from."""
        if state.global_step % self._run.settings.num_iterations == 0:
            self._run.guard.before_step()

    def on_pre_optimizer_step(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Keep gradients that are not finite away from the weights."""
        model = self._run.trainer.model
        if state.global_step == 0 and self._run.settings.sanity_check:
            check_first_gradient(model)
        elif not gradients_are_finite(model):
            model.zero_grad(set_to_none=True)

    def on_log(self, _args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Make one record of a step out of the library's numbers and ours."""
        if logs and "loss" in logs:
            self._run.after_step(state.global_step, logs)
        if self._run.stopped:
            # The state beyond an alarm is of no use to a resume.
            control.should_training_stop = True
            control.should_save = False

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Put our state into the checkpoint."""
        if state.is_world_process_zero and not self._run.stopped:
            self._run.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _Run:
    """One training: TRL's trainer, and what belongs to it on our side."""

    def __init__(
        self,
        loaded: LoadedModel,
        task: TrainTask,
        sampler: CurriculumSampler,
        settings: GrpoSettings,
        hooks: TrainHooks,
        work: Path,
        decode: Decoder,
    ) -> None:
        self.task, self.sampler, self.settings, self.hooks = task, sampler, settings, hooks
        rollouts = Rollouts(loaded, settings, decode, task)
        rewards = Rewards(task, rollouts)
        start = start_weights(loaded.model, task.start)
        self.probe = Probe(loaded, task, settings, decode, start)
        self.average = WeightAverage(loaded.model, settings.num_steps, settings.average_last)
        self.guard = Guard(
            loaded.model, settings, has_probe=bool(task.probe[: settings.probe_size])
        )
        arguments = grpo_arguments(
            settings,
            work,
            rewards.weights(),
            device=loaded.device,
            processes=ranks.world_size(),
        )
        self.trainer = WeightedGrpoTrainer(
            model=loaded.model,
            reward_funcs=rewards.functions(),
            args=arguments,
            train_dataset=draws_dataset(sampler, task, settings),
            processing_class=loaded.tokenizer,
            rollout_func=rollouts,
            callbacks=[_Watcher(self)],
        )
        self.trainer.remove_callback(PrinterCallback)
        self.trainer.check_rows = settings.micro_batch_size if settings.sanity_check else 0
        self.trainer.weight_of = self._weight
        self.trainer.totals = lambda: rewards.totals
        if task.start is not None:
            self.trainer.set_reference(start)
        self.recorder = StepRecorder(rollouts, rewards, sampler, settings, task.schedule(sampler))
        self.start: dict[str, float] = {}
        self.stopped = False

    def _weight(self, input_id: str) -> float:
        """Return the factor on an input's advantages, as it is now."""
        item, replayed = self.task.find(input_id)
        weight = item.weight if self.settings.use_weights else 1.0
        if self.task.growing is not None and not replayed:
            weight *= self.task.growing.weight(input_id, self.trainer.state.global_step)
        return weight

    def begin(self) -> None:
        """Look at the starting policy."""
        if self.probe:
            with self.recorder.timed("probe"):
                before = self.probe.measure_start() if self.task.start else {}
                self.start = self.probe.measure()
            self.guard.start({**self.start, **before})
        self.recorder.restart_clock()

    def resume(self, checkpoint: Path) -> None:
        """Take over the state of a checkpoint."""
        state = read_state(checkpoint)
        self.sampler.load_state_dict(state["sampler"])
        self.guard.load_state_dict(state["guard"])
        self.guard.load_weights(checkpoint)
        self.average.load(checkpoint, int(state.get("averaged", 0)))
        self.probe.source_start = list(state.get("source_start", ()))
        self.recorder.restart_clock()

    def after_step(self, step: int, logs: Mapping[str, float]) -> None:
        """Record a step, tell sampler and guard of it."""
        record = self.recorder.record(step, logs)
        if step == 1:
            record.update({f"start_{name}": value for name, value in self.start.items()})
            record.update(self.trainer.first_batch)
        if self.probe.is_due(step):
            with self.recorder.timed("probe", record):
                record.update(self.probe.measure())
        self.average.after_step(step)
        alarm = self.guard.observe(record)
        self.stopped = bool(ranks.from_first(alarm is not None))
        if alarm is not None:
            record["stopped_by"] = alarm.rule
        self.recorder.restart_clock()
        self.hooks.on_step(record)

    def save(self, folder: Path) -> None:
        """Write our state beside a checkpoint's weights."""
        self.guard.save_weights(folder)
        state = {
            "sampler": self.sampler.state_dict(),
            "guard": self.guard.state_dict(),
            "averaged": self.average.save(folder),
            "source_start": self.probe.source_start,
        }
        write_state(folder, state)


def train_grpo(
    loaded: LoadedModel,
    task: TrainTask,
    sampler: CurriculumSampler,
    settings: GrpoSettings,
    work: Path,
    hooks: TrainHooks,
    decode: Decoder | None = None,
) -> TrainResult:
    """Train the adapter of a model; goes on from the last complete checkpoint in `work`.

    When it returns the model holds the last policy or the best one, as ``settings.keep`` says;
    after an alarm of the collapse guard always the best.

    Args:
        loaded: model with a trainable LoRA adapter named ``default``.
        task: inputs, reward and probe.
        sampler: the curriculum's draws.
        settings: options of GRPO.
        work: folder of the checkpoints.
        hooks: where records go.
        decode: how answers are drawn; None: with the adapter folded into the weights.

    Raises:
        PreconditionError: the checks before the first update failed.
        UsageError: the step cannot be shared out among the processes.
    """
    seed_libraries(settings.seed)
    run = _Run(loaded, task, sampler, settings, hooks, work, decode or merged_decoder(loaded))
    if not ranks.rank():
        remove_incomplete_checkpoints(work)
    ranks.wait_for_all()
    checkpoint = last_complete_checkpoint(work)
    resumed_from = 0
    with memory_errors("training.micro_batch_size"):
        if checkpoint is not None:
            resumed_from = checkpoint_step(checkpoint)
            run.resume(checkpoint)
            hooks.on_resume(resumed_from)
        else:
            hooks.on_resume(0)  # records of a training that left no whole checkpoint
            run.begin()
        run.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    run.trainer.model.eval()
    kept = steps = run.trainer.state.global_step
    if run.guard.alarm is not None or settings.keep == "best":
        kept = run.guard.restore()
    else:
        run.average.restore()
    return TrainResult(steps, resumed_from, run.recorder.totals, kept, run.guard.alarm)
