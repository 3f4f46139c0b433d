"""Baselines: every arm and seed from one queue; done ones are skipped, killed ones go on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.errors import CcrlError, IntegrityError, UsageError
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.common.weights import starting_weights, trained_weights, warmup_is_ready
from ccrl_cli.pipelines.comparison.arms import (
    Recipe,
    arm_profile,
    arms_path,
    chosen_pairs,
    find_recipe,
    pair_name,
)
from ccrl_cli.pipelines.curriculum.plan import planned_steps
from ccrl_cli.pipelines.evaluation.answering import ROLES, View, Way, adopt_answers
from ccrl_cli.pipelines.evaluation.evaluate import (
    EvaluationResult,
    Request,
    evaluate_ways,
    profile_ways,
)
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.pipelines.generation.type_scores import score_types_if_needed
from ccrl_cli.pipelines.labelling.oracle import gold_labels
from ccrl_cli.pipelines.training.outcome import ARM_STEP, TrainOutcome
from ccrl_cli.pipelines.training.rounds import train_rounds
from ccrl_cli.pipelines.training.setup import Variant
from ccrl_cli.pipelines.training.train import OtherTrainingError, TrainOptions
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One (arm, seed) pair of a queue.

    Attributes:
        arm: the recipe.
        seed: seed of its training.
        run_dir: its run directory.
        status: ``done`` by this call, ``skipped`` because it was done before, or ``failed``.
        seconds: wall time of this call.
        message: why it failed.
        cause: kind of the error, as in ``--json``.
    """

    arm: str
    seed: int
    run_dir: str
    status: Status
    seconds: float
    message: str | None = None
    cause: str | None = None


def run_all(
    profile: Profile,
    *,
    arms: Sequence[str] = (),
    overwrite: bool = False,
    reporter: Reporter,
    origins: Mapping[str, str] | None = None,
) -> tuple[ArmRun, ...]:
    """Run every arm over every seed, one after the other, in this process.

    An arm that fails is noted and the others go on.

    Args:
        profile: what all arms are derived from.
        arms: names; empty: those of ``baselines.arms``.
        overwrite: train again where an arm was trained with other settings.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifests.

    Raises:
        UsageError: an arm is unknown or cannot be derived.
        CcrlError: what generation, warm-up or the score before training raise.
    """
    pairs = chosen_pairs(profile, arms)
    for arm, seed in pairs:
        arm_profile(profile, arm, seed)  # refuse what cannot be derived before the work begins
    data = SplitReader()
    found = [prepare(profile, reporter=reporter, data=data)]
    for number, (arm, seed) in enumerate(pairs[1:], start=2):
        reporter.info(f"arm {number} of {len(pairs)}: {arm}, seed {seed}")
        began = time.perf_counter()
        try:
            found.append(
                run_arm(
                    profile,
                    arm,
                    seed,
                    overwrite=overwrite,
                    reporter=reporter,
                    origins=origins,
                    data=data,
                )
            )
        except CcrlError as error:
            reporter.warn(f"{arm} with seed {seed} failed: {error.message}")
            found.append(failed_pair(profile, arm, seed, time.perf_counter() - began, error))
    return tuple(found)


def run_one(
    profile: Profile,
    arm: str,
    seed: int,
    *,
    overwrite: bool = False,
    reporter: Reporter,
    origins: Mapping[str, str] | None = None,
) -> ArmRun:
    """Run one arm with one seed, and first what all arms share.

    Args:
        profile: what all arms are derived from.
        arm: name of the recipe.
        seed: seed of its training.
        overwrite: train again if it was trained with other settings.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifest.

    Raises:
        CcrlError: as :func:`prepare` and :func:`run_arm` do.
    """
    arm_profile(profile, arm, seed)  # refuse what cannot be derived before the work begins
    data = SplitReader()
    start = prepare(profile, reporter=reporter, data=data)
    if (arm, seed) == (start.arm, start.seed):
        return start
    return run_arm(
        profile, arm, seed, overwrite=overwrite, reporter=reporter, origins=origins, data=data
    )


def failed_pair(profile: Profile, arm: str, seed: int, seconds: float, error: CcrlError) -> ArmRun:
    """Return the note of a pair that failed."""
    place = arms_path(profile) / pair_name(arm, seed)
    message = error.message if error.hint is None else f"{error.message} ({error.hint})"
    return ArmRun(arm, seed, str(place), "failed", round(seconds, 1), message, error.kind)


def prepare(profile: Profile, *, reporter: Reporter, data: SplitReader | None = None) -> ArmRun:
    """Do once what all arms share: warm-up, completions, and the score of the start.

    Returns:
        The run of ``zero-shot``, which is that score.
    """
    if profile.warmup.enabled and not warmup_is_ready(profile):
        from ccrl_cli.pipelines.training.warmup import warmup

        warmup(profile, reporter=reporter, data=data)
    generate(profile, GenerateOptions(resume=True), reporter=reporter, data=data)
    score_types_if_needed(profile, reporter=reporter, data=data)
    return run_arm(profile, "zero-shot", profile.run.seed, reporter=reporter, data=data)


def run_arm(
    profile: Profile,
    arm: str,
    seed: int,
    *,
    overwrite: bool = False,
    reporter: Reporter,
    origins: Mapping[str, str] | None = None,
    data: SplitReader | None = None,
) -> ArmRun:
    """Train one arm with one seed and score it; steps that are done are not done again.

    Args:
        profile: what all arms are derived from; its completions must be there.
        arm: name of the recipe.
        seed: seed of its training.
        overwrite: train again if it was trained with other settings.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifest.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        UsageError: there is no such arm, or it was trained with other settings.
        IntegrityError: it took more updates than its budget.
        CcrlError: what training and evaluation raise.
    """
    began = time.perf_counter()
    recipe = find_recipe(arm)
    own = arm_profile(profile, arm, seed)
    data = data or SplitReader()
    start = _adopt_start(profile, own, recipe, reporter, origins or {}, data)
    outcome = _train(own, recipe, overwrite, reporter, origins, data) if recipe.trained else None
    result = _evaluate(own, recipe, reporter, origins, data)
    run = RunDirectory(own.run_path)
    fresh = result.answered > 0 or (outcome is not None and not outcome.already_done)
    seconds = round(time.perf_counter() - began, 1)
    facts = {**_facts(own, recipe, outcome), "start": start}
    mark = run.steps().get(ARM_STEP)
    if fresh or mark is None or mark.result != facts:
        with run:
            run.mark_done(ARM_STEP, "", seconds=seconds, result=facts)
    return ArmRun(arm, seed, str(own.run_path), "done" if fresh else "skipped", seconds)


def _adopt_start(
    profile: Profile,
    own: Profile,
    recipe: Recipe,
    reporter: Reporter,
    origins: Mapping[str, str],
    data: SplitReader,
) -> str:
    """Write the manifest, take over the score of the start, and return what identifies it."""
    start = starting_weights(own, own.model.name, reporter)
    views = [View.load(own, role, data) for role in ROLES]
    zero_shot = RunDirectory(arms_path(profile) / pair_name("zero-shot", profile.run.seed))
    with RunDirectory(own.run_path) as run:
        if not run.manifest_path.exists():
            run.write_manifest(run_manifest(own, views[0].domain, origins, recipe.name))
        for other in (zero_shot, RunDirectory(profile.run_path)):
            if other.path == run.path:
                continue
            for way in profile_ways(own, "before", start):
                adopt_answers(own, other, run, [v for v in views if v.role in way.roles], way)
            if adopt_answers(own, other, run, views, Way("before", start)):
                break
    return start.identity


def variant_of(recipe: Recipe) -> Variant:
    """Return what a recipe changes in training beyond the profile.

    Raises:
        UsageError: the arm is not trained.
    """
    if not recipe.trained:
        raise UsageError(
            f"the arm {recipe.name} is not trained",
            hint=f"score it with `ccrl baselines run {recipe.name}`",
        )
    return Variant(
        arm=recipe.name,
        trainer="sft" if recipe.trainer == "sft" else "grpo",
        random_reward=recipe.random_reward,
        replays=recipe.replays,
        relabel=gold_labels if recipe.uses_gold else None,
    )


def _train(
    own: Profile,
    recipe: Recipe,
    overwrite: bool,
    reporter: Reporter,
    origins: Mapping[str, str] | None,
    data: SplitReader,
) -> TrainOutcome:
    """Train an arm, or go on with its training."""
    variant = variant_of(recipe)
    options = TrainOptions(resume=True, origins=origins or {}, variant=variant)
    try:
        return train_rounds(own, options, reporter=reporter, data=data)
    except OtherTrainingError as error:
        if overwrite:
            anew = replace(options, resume=False, overwrite=True)
            return train_rounds(own, anew, reporter=reporter, data=data)
        raise OtherTrainingError(
            error.message,
            hint="train it again with --overwrite, or name another run: --set run.name=NAME",
        ) from error


def _evaluate(
    own: Profile,
    recipe: Recipe,
    reporter: Reporter,
    origins: Mapping[str, str] | None,
    data: SplitReader,
) -> EvaluationResult:
    """Score an arm in both domains; ``after`` is what it ends with."""
    start = starting_weights(own, own.model.name, reporter)
    ways = [Way("before", start)]
    if recipe.trained:
        trained = trained_weights(start, RunDirectory(own.run_path).adapter_path)
        ways += [Way("after", trained), *profile_ways(own, "after", trained)]
    elif recipe.name == "zero-shot":
        ways += profile_ways(own, "before", start)
    elif recipe.decode is not None:
        ways.append(Way("after", start, recipe.decode, name="after"))
    request = Request(ways, known=tuple(profile_ways(own, "before", start)))
    return evaluate_ways(own, request, reporter=reporter, origins=origins, data=data)


def _facts(own: Profile, recipe: Recipe, outcome: TrainOutcome | None) -> dict[str, Any]:
    """Return what a comparison must know of an arm; its update budget is checked here.

    Raises:
        IntegrityError: more updates were taken than the budget allows.
    """
    facts: dict[str, Any] = {"arm": recipe.name, "kind": recipe.kind, "trainer": recipe.trainer}
    if outcome is None:
        return {**facts, "planned_updates": 0, "updates": 0, "planned_rollouts": 0, "rollouts": 0}
    planned = planned_steps(own, outcome.inputs + outcome.left_out)
    if outcome.steps > planned:
        raise IntegrityError(
            f"{own.run_path} took {outcome.steps} updates, more than its budget of {planned}",
            hint="train it again with --overwrite",
        )
    section = own.training
    group = section.num_generations
    drawn = [
        len(row.get("inputs", ())) + len(row.get("replayed", ()))
        for row in RunDirectory(own.run_path).read_journal("metrics")
    ]
    rounds = -(-planned // section.num_iterations)
    is_grpo = recipe.trainer == "grpo"
    return {
        **facts,
        "planned_updates": planned,
        "updates": outcome.steps,
        "planned_rollouts": rounds * section.prompts_per_step * group * is_grpo,
        "rollouts": sum(drawn) * group * is_grpo,
        "threshold": own.curriculum.threshold,
        "inputs": outcome.inputs,
        "reportable": outcome.reportable,
    }
