"""Train: GRPO on pseudo-labels, surest first."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.curriculum import CurriculumSampler, Stage, stages
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.domains import Domain, load_domain
from ccrl_cli.pipelines.labels import LabelSet, load_labels
from ccrl_cli.pipelines.manifest import run_manifest
from ccrl_cli.pipelines.plan import plan_schedule, planned_steps, training_order
from ccrl_cli.pipelines.start import Start, starting_policy
from ccrl_cli.records import PseudoLabel, content_id
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.reporting import Progress, Reporter
    from ccrl_cli.store.jsonl import JsonlWriter
    from ccrl_cli.trainers.base import GrpoSettings, TrainTask

STEP = "train"
"""Name of the mark of a finished training in a run directory."""

_STAGE_MEANS = ("reward", "reward_overlap", "kl", "zero_spread_share", "valid_share", "entities")


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """What the training did.

    Attributes:
        adapter: folder of the trained adapter.
        steps: optimiser steps.
        resumed_from: step that this call went on from; 0 when it began.
        inputs: inputs of the curriculum.
        left_out: inputs below the threshold or with a prompt that is too long.
        stages: means by stage.
        seconds: wall seconds by part, of this call.
        reportable: False when the labels came from a mock backend.
        counts: inputs, and completions that did not parse.
        already_done: this call found the training finished.
    """

    adapter: str
    steps: int
    resumed_from: int
    inputs: int
    left_out: int
    stages: list[dict[str, Any]]
    seconds: Mapping[str, float]
    reportable: bool
    counts: Mapping[str, int] = field(default_factory=dict)
    already_done: bool = False


class OtherTrainingError(UsageError):
    """A run holds a training with other settings, labels or starting weights (exit 2)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What an arm changes beyond its profile.

    Attributes:
        arm: name of the recipe, for the manifest.
        trainer: ``grpo``, or ``sft``: supervised on the labels.
        random_reward: overlap with the label is replaced by noise.
        relabel: makes other labels of the same inputs; the arm ``oracle`` alone has one.
    """

    arm: str
    trainer: Literal["grpo", "sft"] = "grpo"
    random_reward: bool = False
    relabel: Callable[[Domain, LabelSet], LabelSet] | None = None


def train(
    profile: Profile,
    *,
    reporter: Reporter,
    resume: bool = False,
    overwrite: bool = False,
    origins: Mapping[str, str] | None = None,
    variant: Variant | None = None,
) -> TrainOutcome:
    """Train an adapter on the pseudo-labels of the target's training inputs.

    Args:
        profile: the profile.
        reporter: told of progress.
        resume: go on from the last checkpoint; a finished training is left as it is.
        overwrite: remove the training that the run has, and begin anew.
        origins: origin of each value of the profile, for the manifest.
        variant: what an arm of a comparison changes beyond its profile.

    Raises:
        PreconditionError: completions, the warm-up, a model or a package are missing.
        UsageError: the run has a training already and `resume` is off, or its settings differ.
        PartialError: the training stopped on a number that is not finite.
    """
    from ccrl_cli.models.loading import require_training_packages

    domain = load_domain(profile, "target")
    labels = load_labels(profile, domain)
    if variant and variant.relabel:
        labels = variant.relabel(domain, labels)
    require_training_packages()
    start = starting_policy(profile, profile.model.name, reporter)
    with RunDirectory(profile.run_path) as run:
        digest = _digest(profile, labels, start, variant)
        if overwrite:
            _remove(run)
        mark = run.done(STEP, digest)
        if mark is not None and resume:
            reporter.info(f"{run.path} is trained already")
            return TrainOutcome(**{**mark.result, "already_done": True})
        _check_fresh(run, digest, resume=resume)
        manifest = run_manifest(profile, domain, origins or {}, variant.arm if variant else None)
        run.write_manifest({**manifest, "training_digest": digest})
        started = time.perf_counter()
        if variant and variant.trainer == "sft":
            from ccrl_cli.pipelines.supervised import train_on_labels

            outcome = train_on_labels(profile, run, domain, labels, start, reporter)
        else:
            noise = variant is not None and variant.random_reward
            outcome = _train(profile, run, domain, labels, start, reporter, noise)
        plain = {name: getattr(outcome, name) for name in TrainOutcome.__slots__}
        run.mark_done(
            STEP,
            digest,
            seconds=time.perf_counter() - started,
            result={**plain, "seconds": dict(outcome.seconds), "counts": dict(outcome.counts)},
        )
    return outcome


def _digest(
    profile: Profile, labels: LabelSet, start: Start, variant: Variant | None = None
) -> str:
    """Return what identifies a training: settings, pseudo-labels and starting weights."""
    from ccrl_cli.config.load import section_digest

    settings = section_digest(
        profile, "model", "prompt", "confidence", "curriculum", "reward", "training", "run.seed"
    )
    facts = [
        f"{key}:{label.confidence!r}:{label.entities!r}:{label.abstained!r}"
        for key, label in labels.labels.items()
    ]
    if variant and (variant.trainer != "grpo" or variant.random_reward):
        rate = profile.baselines.sft_learning_rate if variant.trainer == "sft" else None
        facts.append(f"{variant.trainer} {rate} {variant.random_reward}")
    return content_id("\n".join([settings, start.identity, *facts]))


def _remove(run: RunDirectory) -> None:
    """Remove the training of a run: its adapter, checkpoints, journals, and scores of it."""
    run.forget(STEP)
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)
    shutil.rmtree(run.adapter_path, ignore_errors=True)
    run.rewind(0)


def _check_fresh(run: RunDirectory, digest: str, *, resume: bool) -> None:
    """Refuse to mix two trainings in one run directory; without resume, begin anew is explicit."""
    begun = run.checkpoints_path.exists() or run.adapter_path.exists()
    if not begun:
        return
    if not resume:
        raise UsageError(
            f"{run.path} already holds a training",
            hint="go on with --resume, replace it with --overwrite, or name another run: "
            "--set run.name=NAME",
        )
    known = run.read_manifest().get("training_digest") if run.manifest_path.exists() else None
    if known != digest:
        raise OtherTrainingError(
            f"{run.path} holds a training with other settings, labels or starting weights",
            hint="replace it with --overwrite, or name another run: --set run.name=NAME",
        )


def _train(
    profile: Profile,
    run: RunDirectory,
    domain: Domain,
    labels: LabelSet,
    start: Start,
    reporter: Reporter,
    noise: bool = False,
) -> TrainOutcome:
    import numpy as np

    from ccrl_cli.models.loading import save_adapter
    from ccrl_cli.trainers.base import TrainHooks
    from ccrl_cli.trainers.grpo import train_grpo

    loaded = load_policy(profile, start)
    task, confidence = _task(profile, domain, labels, loaded)
    if noise:
        task = replace(task, noise_seed=derive_seed(profile.run.seed, "random-reward"))
    order = training_order(profile, confidence)
    if not order:
        raise PreconditionError(
            f"no input is left to train on: all {len(labels.labels)} lie below "
            f"curriculum.threshold = {profile.curriculum.threshold:g} or have too long a prompt",
            hint="lower curriculum.threshold (for the arm threshold-only: baselines.threshold) or "
            "raise training.max_prompt_tokens",
        )
    schedule = plan_schedule(profile, len(order), len(labels.labels))
    seed = derive_seed(profile.run.seed, "curriculum-draws")
    sampler = CurriculumSampler(
        order,
        schedule,
        np.random.Generator(np.random.Philox(seed)),
        gate=profile.curriculum.gate,
    )
    settings = grpo_settings(profile, len(labels.labels))
    with (
        _journals(run) as (metrics, stage_file),
        reporter.progress(settings.num_steps, "train", unit="steps") as progress,
    ):
        recorder = _Recorder(run, metrics, stage_file, progress, list(stages(schedule)), settings)
        hooks = TrainHooks(on_step=recorder.on_step, on_resume=recorder.on_resume)
        result = train_grpo(loaded, task, sampler, settings, run.checkpoints_path, hooks)
        recorder.finish()
    save_adapter(loaded.model, run.adapter_path, base=profile.model.name)
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)
    return TrainOutcome(
        adapter=str(run.adapter_path),
        steps=result.steps,
        resumed_from=result.resumed_from,
        inputs=len(order),
        left_out=len(labels.labels) - len(order),
        stages=run.read_journal("stages"),
        seconds={name: round(value, 2) for name, value in result.seconds.items()},
        reportable=labels.reportable,
        counts={"inputs": len(order), "invalid_completions": labels.num_invalid},
    )


def load_policy(profile: Profile, start: Start) -> LoadedModel:
    """Load the starting policy with an adapter that can be trained."""
    from ccrl_cli.models.loading import load_model
    from ccrl_cli.trainers.seeding import seed_libraries
    from ccrl_cli.trainers.sft import add_adapter

    section = profile.training
    loaded = load_model(
        start.folder,
        adapter=start.adapter,
        trainable=True,
        dtype=profile.model.dtype,
        load_in_4bit=profile.model.load_in_4bit,
        attention=profile.model.attention,
    )
    if start.adapter is not None:
        return loaded
    seed_libraries(derive_seed(profile.run.seed, "adapter") % 2**32)
    model = add_adapter(
        loaded.model,
        rank=section.lora_rank,
        alpha=section.lora_alpha,
        modules=section.lora_target_modules,
        dropout=section.lora_dropout,
    )
    return replace(loaded, model=model)


def _task(
    profile: Profile, domain: Domain, labels: LabelSet, loaded: LoadedModel
) -> tuple[TrainTask, dict[str, float]]:
    """Return what is trained on, and the confidence of the inputs whose prompt is short enough."""
    from ccrl_cli.trainers.base import TrainInput, TrainTask

    special = tuple(loaded.tokenizer.all_special_tokens)
    limit = profile.training.max_prompt_tokens
    inputs: dict[str, TrainInput] = {}
    for key, label in labels.labels.items():
        example = labels.examples[key]
        prompt = loaded.render(
            [dict(m) for m in domain.prompt(example, sample=0, special_tokens=special)]
        )
        if len(loaded.encode(prompt)) > limit:
            continue
        target = make_target(
            Aligner(example), label.entities, label.abstained, _votes(profile, label)
        )
        inputs[key] = TrainInput(key, prompt, target, weight=label.confidence)
    reward = profile.reward
    weights = RewardWeights(
        overlap=reward.overlap,
        overlap_weight=reward.overlap_weight,
        format_weight=reward.format_weight,
        length_weight=reward.length_weight,
        length_soft_tokens=max(1, profile.training.max_completion_tokens // 2),
        length_limit_tokens=profile.training.max_completion_tokens,
    )
    probe = [inputs[key].prompt for key in sorted(inputs)[: profile.training.probe_size]]
    confidence = {key: labels.labels[key].confidence for key in inputs}
    return TrainTask(inputs, domain.names.by_name, weights, tuple(probe)), confidence


def _votes(profile: Profile, label: PseudoLabel) -> tuple[tuple[Any, float], ...] | None:
    """Return the votes that ``expected_f1`` reads; None for the other overlaps."""
    return label.votes if profile.reward.overlap == "expected_f1" else None


def grpo_settings(profile: Profile, num_inputs: int) -> GrpoSettings:
    """Return the options of GRPO from the profile, by name."""
    from dataclasses import fields

    from ccrl_cli.trainers.base import GrpoSettings

    section = profile.training
    own = {"num_steps", "seed", "use_weights"}
    values = {f.name: getattr(section, f.name) for f in fields(GrpoSettings) if f.name not in own}
    return GrpoSettings(
        num_steps=planned_steps(profile, num_inputs),
        seed=derive_seed(profile.run.seed, "trainer") % 2**32,
        use_weights=section.confidence_weight == "advantage",
        **values,
    )


@contextmanager
def _journals(run: RunDirectory) -> Iterator[tuple[JsonlWriter, JsonlWriter]]:
    """Open the journals of a training."""
    if not run.checkpoints_path.exists():
        run.rewind(0)
    with closing(run.journal("metrics")) as metrics, closing(run.journal("stages")) as stage_file:
        yield metrics, stage_file


class _Recorder:
    """Writes step and stage records and shows progress."""

    def __init__(
        self,
        run: RunDirectory,
        metrics: JsonlWriter,
        stage_file: JsonlWriter,
        progress: Progress,
        plan: list[Stage],
        settings: GrpoSettings,
    ) -> None:
        self._run = run
        self._metrics = metrics
        self._stage_file = stage_file
        self._progress = progress
        self._plan = plan
        self._per_step = settings.num_iterations
        self._records: list[dict[str, Any]] = []
        self._shown = 0

    def on_resume(self, step: int) -> None:
        """Forget the records after the step that training goes on from."""
        self._metrics.close()
        self._stage_file.close()
        self._run.rewind(step)
        self._records = self._run.read_journal("metrics")
        self._metrics = self._run.journal("metrics")
        self._stage_file = self._run.journal("stages")
        self._progress.advance(step)
        self._shown = step

    def on_step(self, record: dict[str, Any]) -> None:
        """Keep the record of a step, and that of a stage when one ends."""
        self._metrics.append(record)
        self._records.append(record)
        step = int(record["step"])
        shown = {"reward": f"{record['reward']:.3f}", "open": record["num_open"]}
        if "kl" in record:
            shown["kl"] = f"{record['kl']:.4f}"
        self._progress.advance(step - self._shown, **shown)
        self._shown = step
        for stage in self._plan:
            if stage.end_step * self._per_step == step:
                self._stage_file.append(self._stage_record(stage, step))

    def finish(self) -> None:
        """Close the journals; safe to call twice."""
        self._metrics.close()
        self._stage_file.close()

    def _stage_record(self, stage: Stage, step: int) -> dict[str, Any]:
        first = stage.first_step * self._per_step
        inside = [r for r in self._records if first < r["step"] <= step]
        means = {}
        for name in _STAGE_MEANS:
            values = [r[name] for r in inside if r.get(name) is not None]
            if values:
                means[name] = round(sum(values) / len(values), 6)
        return {
            "step": step,
            "stage": stage.number,
            "steps": step - first,
            "num_open": stage.num_open,
            "open_share": inside[-1]["open_share"] if inside else None,
            **means,
        }
