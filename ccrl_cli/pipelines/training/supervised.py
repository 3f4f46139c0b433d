"""Supervised training on pseudo-labels: the arm ``naive-sft``, at the update budget of GRPO."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PreconditionError
from ccrl_cli.pipelines.curriculum.plan import planned_steps, replayed_prompts, training_order
from ccrl_cli.pipelines.training.outcome import TrainOutcome
from ccrl_cli.pipelines.training.setup import draw_back
from ccrl_cli.pipelines.training.task import (
    InputMaker,
    grpo_settings,
    policy_spec,
    reward_weights,
    source_inputs,
)

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.pipelines.training.setup import Job
    from ccrl_cli.reporting import Progress
    from ccrl_cli.store.jsonl import JsonlWriter
    from ccrl_cli.store.runs import RunDirectory
    from ccrl_cli.trainers.base import TrainInput
    from ccrl_cli.trainers.sft import SupervisedSettings

Pair = tuple[list[int], list[int]]


def train_on_labels(job: Job, run: RunDirectory) -> TrainOutcome:
    """Train the adapter to write the pseudo-labels; as many updates of as many inputs as GRPO.

    Entities that abstain are left out of the answers, like negatives: a supervised loss has no
    way to say nothing about them. Goes on from the last complete checkpoint.

    Raises:
        PreconditionError: no prompt is short enough.
    """
    from ccrl_cli.models.loading import save_adapter
    from ccrl_cli.trainers.registry import trainer_backend
    from ccrl_cli.trainers.sft import last_whole_step, train_supervised

    profile, labels, reporter = job.profile, job.labels, job.reporter
    loaded = trainer_backend("trl").load(policy_spec(profile, job.begin))
    maker = InputMaker(profile, loaded)
    inputs = maker.target(job.domain, labels)
    chosen = training_order(profile, {key: labels.labels[key].confidence for key in inputs})
    pairs = _pairs(loaded, [inputs[key] for key in sorted(chosen)])
    if not pairs:
        raise PreconditionError(
            f"all {len(labels.labels)} inputs are held out or have too long a prompt",
            hint="raise training.max_prompt_tokens",
        )
    num_steps = planned_steps(profile, len(labels.labels))
    replays = bool(job.variant and job.variant.replays)
    settings = _settings(profile, num_steps, replays=replays)
    probe = _probe(profile, loaded, inputs, len(labels.labels))
    first = last_whole_step(run.checkpoints_path)
    run.rewind(first)
    replayed = num_steps * replayed_prompts(profile) if replays else 0
    drawn = _drawn(pairs, num_steps * settings.batch_size - replayed, settings.seed)
    if replayed:
        source, _ = source_inputs(profile, maker, replayed, reporter, job.domain.reader)
        drawn += _drawn(_pairs(loaded, list(source.values())), replayed, settings.seed)
    began = time.perf_counter()
    with (
        closing(run.journal("metrics")) as metrics,
        reporter.progress(num_steps, "train (supervised)", unit="steps") as progress,
    ):
        progress.advance(first)
        steps = _Steps(metrics, progress, probe, num_steps, len(pairs))
        result = train_supervised(
            loaded,
            drawn,
            settings,
            run.checkpoints_path,
            on_step=steps.on_step,
            section="training",
        )
    seconds = time.perf_counter() - began
    save_adapter(loaded.model, run.adapter_path, base=profile.model.name)
    draw_back(profile, run.adapter_path, job.start)
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)
    return TrainOutcome(
        adapter=str(run.adapter_path),
        steps=result.steps,
        resumed_from=first,
        inputs=len(pairs),
        left_out=len(labels.labels) - len(pairs),
        stages=[],
        seconds={"train": round(seconds, 2)},
        reportable=labels.reportable,
        counts={"inputs": len(pairs), "invalid_completions": labels.num_invalid},
    )


def _pairs(loaded: LoadedModel, rows: Sequence[TrainInput]) -> list[Pair]:
    """Return the tokens of prompts and answers."""
    return [(loaded.encode(row.prompt), loaded.encode_answer(row.answer)) for row in rows]


_LOGGED = ("loss", "grad_norm", "learning_rate")


class _Steps:
    """Writes step records and shows progress."""

    def __init__(
        self,
        metrics: JsonlWriter,
        progress: Progress,
        probe: Callable[[], float] | None,
        num_steps: int,
        num_inputs: int,
    ) -> None:
        self._metrics = metrics
        self._progress = progress
        self._probe = probe
        self._num_steps = num_steps
        self._num_inputs = num_inputs
        self._clock = time.perf_counter()

    def on_step(self, step: int, record: Mapping[str, float]) -> None:
        """Keep the record of a step; the last one has the KL to the start."""
        row: dict[str, Any] = {"step": step, "num_open": self._num_inputs, "open_share": 1.0}
        row |= {name: record[name] for name in _LOGGED if name in record}
        row["seconds_train"] = round(time.perf_counter() - self._clock, 4)
        if self._probe is not None and step == self._num_steps:
            row["kl"] = self._probe()
        self._metrics.append(row)
        self._progress.advance(1, loss=f"{record['loss']:.3f}")
        self._clock = time.perf_counter()


def _settings(profile: Profile, num_steps: int, *, replays: bool) -> SupervisedSettings:
    """Return how labels are trained on; with replay, at the learning rate's shape of GRPO."""
    from math import gcd

    from ccrl_cli.trainers.sft import SupervisedSettings

    section = profile.training
    settings = SupervisedSettings(
        method="lora",
        max_steps=num_steps,
        learning_rate=profile.baselines.sft_learning_rate or section.learning_rate,
        batch_size=section.prompts_per_step,
        micro_batch_size=gcd(section.prompts_per_step, section.micro_batch_size),
        save_every_steps=section.save_every_steps,
        seed=derive_seed(profile.run.seed, "trainer") % 2**32,
    )
    if not replays:
        return settings
    return replace(settings, scheduler=section.lr_scheduler, warmup_ratio=section.lr_warmup_ratio)


def _drawn(pairs: Sequence[Pair], count: int, seed: int) -> list[Pair]:
    """Return `count` pairs: whole passes in random orders, then a part of one."""
    import random

    drawn: list[Pair] = []
    number = 0
    while len(drawn) < count:
        order = list(pairs)
        random.Random(derive_seed(seed, "pass", number)).shuffle(order)
        drawn += order[: count - len(drawn)]
        number += 1
    return drawn


def _probe(
    profile: Profile, loaded: LoadedModel, inputs: Mapping[str, TrainInput], num_labels: int
) -> Callable[[], float] | None:
    """Return what measures the KL to the start as GRPO does; None where it is switched off."""
    from ccrl_cli.trainers.base import TrainTask
    from ccrl_cli.trainers.probe import Probe
    from ccrl_cli.trainers.rollouts import merged_decoder

    chosen = tuple(inputs[key] for key in sorted(inputs)[: profile.training.probe_size])
    if not chosen:
        return None
    task = TrainTask(inputs=inputs, reward=reward_weights(profile), probe=chosen)
    settings = grpo_settings(profile, num_labels)
    probe = Probe(loaded, task, settings, merged_decoder(loaded))
    return lambda: probe.measure()["kl"]
