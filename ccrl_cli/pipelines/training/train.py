"""Train: GRPO on pseudo-labels, surest first."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.curriculum import stages
from ccrl_cli.errors import UsageError
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Domain, load_domain
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.common.weights import starting_weights, untrained_weights
from ccrl_cli.pipelines.labelling.labels import LabelSet, load_labels
from ccrl_cli.pipelines.training.journal import open_journal
from ccrl_cli.pipelines.training.outcome import ARM_STEP, ROUNDS, ROUNDS_FILE, TrainOutcome
from ccrl_cli.pipelines.training.setup import Job, Prepared, Variant, draw_back, prepare
from ccrl_cli.pipelines.training.task import policy_spec
from ccrl_cli.records import content_id
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.reporting import Reporter
    from ccrl_cli.trainers.base import TrainResult

STEP = "train"
"""Name of the mark of a finished training in a run directory."""


FREE = (
    "training.micro_batch_size",
    "training.gradient_checkpointing",
    "training.keep_checkpoints",
    "training.trackers",
    "model.trained_adapter",  # its weights are looked at, not its place
)
"""Settings that may change between two calls: results do not depend on them but for rounding."""


LABELLING = ("num_completions", "temperature", "top_p", "max_tokens", "constrained")
"""How completions are drawn, on which the labels of later rounds depend."""


class OtherTrainingError(UsageError):
    """A run holds a training with other settings, labels or starting weights (exit 2)."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Flags of a training that are no part of a profile.

    Attributes:
        resume: go on from the last checkpoint; a finished training is left as it is.
        overwrite: remove the training that the run has, and begin anew.
        origins: origin of each value of the profile, for the manifest.
        variant: what an arm of a comparison changes beyond its profile.
    """

    resume: bool = False
    overwrite: bool = False
    origins: Mapping[str, str] = field(default_factory=dict)
    variant: Variant | None = None


def train(
    profile: Profile,
    options: TrainOptions,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
    labels: LabelSet | None = None,
) -> TrainOutcome:
    """Train an adapter in this process alone; see :func:`train_shared`.

    Raises:
        UsageError: several processes were started.
    """
    refuse_processes()
    outcome = train_shared(profile, options, reporter=reporter, data=data, labels=labels)
    assert outcome is not None
    return outcome


def refuse_processes() -> None:
    """Raise UsageError where several processes were started for what one does."""
    from ccrl_cli.trainers import ranks

    if ranks.world_size() > 1:
        raise UsageError(
            f"{ranks.world_size()} processes were started for work that one does",
            hint="start `ccrl train` of a single round alone in several processes "
            "(--set curriculum.rounds=1), the other commands in one",
        )


def train_shared(
    profile: Profile,
    options: TrainOptions,
    *,
    reporter: Reporter,
    data: SplitReader | None = None,
    labels: LabelSet | None = None,
) -> TrainOutcome | None:
    """Train an adapter on the pseudo-labels of the target's training inputs, once.

    Started by torchrun or accelerate in several processes, each step is shared out among them;
    the first alone writes, says anything and has a result.

    Args:
        profile: the profile.
        options: flags.
        reporter: told of progress.
        data: reads the splits of the command; None: this call reads its own.
        labels: the pseudo-labels, if they are derived already.

    Returns:
        What was done; None in every process but the first.

    Raises:
        PreconditionError: completions, the warm-up, a model or a package are missing.
        UsageError: the run has a training already and `resume` is off, or its settings differ.
    """
    from ccrl_cli.trainers import ranks

    backend = _backend(profile, reporter)
    domain = load_domain(profile, "target", data)
    variant = options.variant
    labels = labels or load_labels(profile, domain)
    if variant and variant.relabel:
        labels = variant.relabel(domain, labels)
    if backend != "unsloth":
        ranks.join()
    if ranks.rank():
        _follow(profile, domain, labels, backend, variant)
        return None
    begin, start = training_weights(profile, reporter)
    ranks.wait_for_all()  # what had to be downloaded is there
    job = Job(profile, domain, labels, begin, start, backend, reporter, variant)
    with RunDirectory(profile.run_path) as run:
        digest = training_digest(profile, labels, begin, variant)
        if options.overwrite:
            remove_training(run)
        mark = run.done(STEP, digest)
        ranks.from_first(mark is None or not options.resume)
        if mark is not None and options.resume:
            return found_done(run, mark.result, reporter)
        check_fresh(run, digest, resume=options.resume)
        write_manifest(run, profile, domain, options, digest)
        ranks.wait_for_all()
        started = time.perf_counter()
        if variant and variant.trainer == "sft":
            from ccrl_cli.pipelines.training.supervised import train_on_labels

            outcome = train_on_labels(job, run)
        else:
            outcome = _lead(job, run)
        mark_trained(run, digest, outcome, time.perf_counter() - started)
    return outcome


def _backend(profile: Profile, reporter: Reporter) -> str:
    """Return the trainer; raise PreconditionError if it, or a package it needs, is missing."""
    from ccrl_cli.models.loading import require_training_packages
    from ccrl_cli.trainers import ranks
    from ccrl_cli.trainers.registry import choose_trainer
    from ccrl_cli.trainers.trackers import require_trackers

    require_training_packages()
    require_trackers(profile.training.trackers)
    backend, reason = choose_trainer(profile.training.backend, processes=ranks.world_size())
    reporter.debug(f"trainer {backend}: {reason}")
    return backend


def training_weights(profile: Profile, reporter: Reporter) -> tuple[Weights, Weights]:
    """Return the weights that a training begins with, and the start that distances are from."""
    begin = starting_weights(profile, profile.model.name, reporter)
    if profile.model.trained_adapter is None:
        return begin, begin
    return begin, untrained_weights(profile, profile.model.name, reporter)


def write_manifest(
    run: RunDirectory, profile: Profile, domain: Domain, options: TrainOptions, digest: str
) -> None:
    """Write the manifest of a run with what identifies its training."""
    arm = options.variant.arm if options.variant else None
    manifest = run_manifest(profile, domain, options.origins, arm)
    run.write_manifest({**manifest, "training_digest": digest})


def mark_trained(run: RunDirectory, digest: str, outcome: TrainOutcome, seconds: float) -> None:
    """Mark a training as finished, with its outcome."""
    plain = {name: getattr(outcome, name) for name in TrainOutcome.__slots__}
    result = {**plain, "seconds": dict(outcome.seconds), "counts": dict(outcome.counts)}
    run.mark_done(STEP, digest, seconds=seconds, result=result)


def found_done(run: RunDirectory, result: Mapping[str, Any], reporter: Reporter) -> TrainOutcome:
    """Return the outcome of a training that finished before, and say again what it warned of."""
    reporter.info(f"{run.path} is trained already")
    outcome = TrainOutcome(**{**result, "already_done": True})
    if outcome.warning:
        reporter.warn(outcome.warning)
    return outcome


def _follow(
    profile: Profile,
    domain: Domain,
    labels: LabelSet,
    backend: str,
    variant: Variant | None,
) -> None:
    """Do the share of a process that is not the first: it writes and says nothing."""
    from ccrl_cli.trainers import ranks
    from ccrl_cli.trainers.base import TrainHooks

    ranks.wait_for_all()
    quiet = NullReporter()
    begin, start = training_weights(profile, quiet)
    if not ranks.from_first(True):
        return
    ranks.wait_for_all()
    job = Job(profile, domain, labels, begin, start, backend, quiet, variant)
    prepared = prepare(job)
    prepared.train(TrainHooks(on_step=lambda _record: None))
    ranks.wait_for_all()


def training_digest(
    profile: Profile, labels: LabelSet, start: Weights, variant: Variant | None = None
) -> str:
    """Return what identifies a training: settings, pseudo-labels and starting weights."""
    from ccrl_cli.config.load import section_digest

    parts = ["model", "prompt", "confidence", "curriculum", "reward", "training", "run.seed"]
    if profile.training.replay_share or profile.training.probe_source_size:
        parts.append("data.source")
    if profile.curriculum.rounds > 1 and profile.curriculum.round is None:
        parts += [f"generation.{name}" for name in LABELLING]
    settings = section_digest(profile, *parts, without=FREE)
    facts = [
        f"{key}:{label.confidence!r}:{label.entities!r}:{label.abstained!r}"
        for key, label in labels.labels.items()
    ]
    if variant and (variant.trainer != "grpo" or variant.random_reward):
        rate = profile.baselines.sft_learning_rate if variant.trainer == "sft" else None
        facts.append(f"{variant.trainer} {rate} {variant.random_reward} {variant.replays}")
    return content_id("\n".join([settings, start.identity, *facts]))


def remove_training(run: RunDirectory) -> None:
    """Remove the training of a run: its adapter, checkpoints, journals, and scores of it."""
    for name in run.steps():
        scored = name.startswith("evaluate-") and "-after" in name
        if scored or name in (STEP, ARM_STEP):
            run.forget(name)
    run.evaluation_path.unlink(missing_ok=True)
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)
    shutil.rmtree(run.adapter_path, ignore_errors=True)
    shutil.rmtree(run.path / ROUNDS, ignore_errors=True)
    (run.path / ROUNDS_FILE).unlink(missing_ok=True)
    run.rewind(0)


def check_fresh(run: RunDirectory, digest: str, *, resume: bool) -> None:
    """Refuse to mix two trainings in one run directory; without resume, begin anew is explicit."""
    places = (run.checkpoints_path, run.adapter_path, run.path / ROUNDS)
    begun = any(place.exists() for place in places)
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


def _lead(job: Job, run: RunDirectory) -> TrainOutcome:
    """Train as the first or only process: keep journals, save the adapter."""
    from ccrl_cli.models.loading import save_adapter
    from ccrl_cli.store.atomic import write_json
    from ccrl_cli.trainers import ranks
    from ccrl_cli.trainers.base import TrainHooks
    from ccrl_cli.trainers.trackers import open_trackers

    prepared = prepare(job)
    settings = prepared.settings
    plan = list(stages(prepared.task.schedule(prepared.sampler)))
    write_json(run.path / "training.json", _effective(prepared))
    trackers = open_trackers(
        job.profile.training.trackers,
        run.path,
        job.profile.run.name,
        job.profile.training.model_dump(mode="json"),
    )
    with (
        job.reporter.progress(settings.num_steps, "train", unit="steps") as progress,
        open_journal(run, progress, plan, settings, trackers) as journal,
    ):
        hooks = TrainHooks(on_step=journal.on_step, on_resume=journal.on_resume)
        result = prepared.train(hooks)
    save_adapter(prepared.loaded.model, run.adapter_path, base=job.profile.model.name)
    draw_back(job.profile, run.adapter_path, job.start)
    ranks.wait_for_all()
    shutil.rmtree(run.checkpoints_path, ignore_errors=True)
    return _outcome(job, run, prepared, result)


def _effective(prepared: Prepared) -> dict[str, Any]:
    """Return the options of a training as they reach the trainer, and who ignores which."""
    from dataclasses import asdict

    from ccrl_cli.trainers import ranks

    job = prepared.job
    ignored = prepared.backend.ignored(policy_spec(job.profile, job.begin), prepared.settings)
    return {
        "backend": job.backend,
        "processes": ranks.world_size(),
        "ignored": ignored,
        "settings": asdict(prepared.settings),
    }


def _outcome(job: Job, run: RunDirectory, prepared: Prepared, result: TrainResult) -> TrainOutcome:
    from ccrl_cli.trainers import ranks

    total, inputs = len(job.labels.labels), prepared.sampler.schedule.num_inputs
    warning = _warning(result, run)
    if warning:
        job.reporter.warn(warning)
    return TrainOutcome(
        adapter=str(run.adapter_path),
        steps=result.steps,
        resumed_from=result.resumed_from,
        inputs=inputs,
        left_out=total - inputs,
        stages=run.read_journal("stages"),
        seconds={name: round(value, 2) for name, value in result.seconds.items()},
        reportable=job.labels.reportable,
        counts={"inputs": inputs, "invalid_completions": job.labels.num_invalid},
        kept_step=result.kept_step,
        stopped_by=result.alarm.rule if result.alarm is not None else None,
        warning=warning,
        backend=job.backend,
        processes=ranks.world_size(),
    )


def _warning(result: TrainResult, run: RunDirectory) -> str | None:
    """Return what a user should know of a training that the guard ended, in a sentence or two."""
    if result.alarm is None:
        return None
    kept = f"the policy after step {result.kept_step}, the best so far"
    if not result.kept_step:
        kept = "the starting policy: no later one was better on the probe"
    return (
        f"the collapse guard stopped the training at step {result.alarm.step} "
        f"({result.alarm.rule}): {result.alarm.message}; {run.adapter_path} holds {kept}; "
        "lower training.learning_rate, raise training.beta, or see training.guard"
    )
