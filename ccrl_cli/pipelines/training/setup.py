"""A training of a profile with everything loaded: policy, task, draws, settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ccrl_cli.core.curriculum import CurriculumSampler
from ccrl_cli.core.entity_curriculum import EntityCurriculum
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.rounds import is_held_out
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain
from ccrl_cli.pipelines.curriculum.plan import plan_entities, plan_schedule, training_order
from ccrl_cli.pipelines.labelling.labels import LabelSet
from ccrl_cli.pipelines.training.task import (
    InputMaker,
    grpo_settings,
    policy_spec,
    reward_weights,
    sampling_rates,
    source_inputs,
)
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.models.loading import LoadedModel
    from ccrl_cli.reporting import Reporter
    from ccrl_cli.trainers.base import GrpoSettings, TrainHooks, TrainResult, TrainTask


@dataclass(frozen=True, slots=True)
class Variant:
    """What an arm changes beyond its profile.

    Attributes:
        arm: name of the recipe, for the manifest.
        trainer: ``grpo``, or ``sft``: supervised on the labels.
        random_reward: overlap with the label is replaced by noise.
        replays: supervised training replays source sentences too, at GRPO's shape of the rate.
        relabel: makes other labels of the same inputs; the arm ``oracle`` alone has one.
    """

    arm: str
    trainer: Literal["grpo", "sft"] = "grpo"
    random_reward: bool = False
    replays: bool = False
    relabel: Callable[[Domain, LabelSet], LabelSet] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One training of a profile, in one process.

    Attributes:
        profile: the profile.
        domain: the target.
        labels: pseudo-labels of its training inputs.
        begin: weights that are trained.
        start: weights that distances are measured from; other ones where `begin` is trained.
        backend: name of the trainer.
        reporter: told of progress.
        variant: what an arm changes.
    """

    profile: Profile
    domain: Domain
    labels: LabelSet
    begin: Weights
    start: Weights
    backend: str
    reporter: Reporter
    variant: Variant | None = None


@dataclass(slots=True)
class Prepared:
    """A training with everything loaded."""

    job: Job
    backend: Any
    loaded: LoadedModel
    task: TrainTask
    sampler: CurriculumSampler
    settings: GrpoSettings

    def train(self, hooks: TrainHooks) -> TrainResult:
        """Train in this process; its checkpoints are in the run directory."""
        work = RunDirectory(self.job.profile.run_path).checkpoints_path
        result: TrainResult = self.backend.train(
            self.loaded, self.task, self.sampler, self.settings, work, hooks
        )
        return result


def prepare(job: Job) -> Prepared:
    """Load the policy and make task, draws and settings."""
    from ccrl_cli.trainers.base import GrowingTargets, Start, TrainTask
    from ccrl_cli.trainers.registry import trainer_backend

    profile, labels = job.profile, job.labels
    backend = trainer_backend(job.backend)
    settings = grpo_settings(profile, len(labels.labels))
    spec = policy_spec(profile, job.begin)
    for sentence in backend.ignored(spec, settings):
        job.reporter.warn(f"the {job.backend} trainer does not follow {sentence}")
    loaded = backend.load(spec)
    maker = InputMaker(profile, loaded)
    inputs = maker.target(job.domain, labels)
    sampler, entities = _sampler(job, {key: labels.labels[key].confidence for key in inputs})
    replayed = sampler.schedule.num_steps * settings.replayed
    replay, probe = source_inputs(profile, maker, replayed, job.reporter, job.domain.reader)
    held_out = [key for key in inputs if is_held_out(key, profile.curriculum.held_out_share)]
    chosen = {key: inputs[key] for key in (*sampler.order, *held_out)}
    probed = sorted(held_out or chosen)[: settings.probe_size]
    task = TrainTask(
        inputs=chosen,
        reward=reward_weights(profile),
        probe=tuple(chosen[key] for key in probed),
        replay=replay,
        source_probe=probe,
        growing=GrowingTargets(entities, settings.num_iterations) if entities else None,
        start=Start(job.start.adapter) if job.begin != job.start else None,
        noise_seed=(
            derive_seed(profile.run.seed, "random-reward")
            if job.variant and job.variant.random_reward
            else None
        ),
    )
    return Prepared(job, backend, loaded, task, sampler, settings)


def _sampler(
    job: Job, confidence: Mapping[str, float]
) -> tuple[CurriculumSampler, EntityCurriculum | None]:
    """Return the curriculum's draws, and where entities are its unit, the targets by step."""
    profile, total = job.profile, len(job.labels.labels)
    order = training_order(profile, confidence, job.labels.ranks(profile))
    if not order:
        raise PreconditionError(
            f"no input is left to train on: all {total} lie below curriculum.threshold = "
            f"{profile.curriculum.threshold:g}, are held out or have too long a prompt",
            hint="lower curriculum.threshold (for the arm threshold-only: baselines.threshold) or "
            "raise training.max_prompt_tokens",
        )
    rates = sampling_rates(profile, {key: confidence[key] for key in order})
    if rates is not None and not max(rates.values()):
        raise UsageError(
            "training.confidence_weight = sampling draws by confidence, and every confidence is 0",
            hint="--set training.confidence_weight=none, or another confidence.metric",
        )
    entities = plan_entities(profile, job.labels, order)
    schedule = plan_schedule(profile, len(order), total)
    if entities is not None:
        schedule = replace(
            schedule, pacing=Pacing("constant")
        )  # every sentence from the first step
    seed = derive_seed(profile.run.seed, "curriculum-draws")
    rng = np.random.Generator(np.random.Philox(seed))
    sampler = CurriculumSampler(order, schedule, rng, gate=profile.curriculum.gate, rates=rates)
    return sampler, entities


def draw_back(profile: Profile, adapter: Path, start: Weights) -> None:
    """Mix a share of the start into a trained adapter, where the profile asks for it.

    A round leaves that to the whole of the rounds.
    """
    share = profile.training.start_share
    if share and profile.curriculum.round is None:
        from ccrl_cli.models.mixing import mix_adapters

        mix_adapters([(adapter, 1.0 - share), (start.adapter, share)], adapter)
