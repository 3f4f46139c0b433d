"""Run: the whole pipeline of a profile, each step skipped when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.errors import PreconditionError
from ccrl_cli.findings import Finding
from ccrl_cli.findings.runs import run_finding
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.weights import warmup_is_ready, warmup_path
from ccrl_cli.pipelines.curriculum.show import CurriculumView, show_curriculum
from ccrl_cli.pipelines.evaluation.evaluate import EvaluationResult, evaluate
from ccrl_cli.pipelines.evaluation.rounds import score_rounds
from ccrl_cli.pipelines.generation.generate import GenerateOptions, GenerateResult, generate
from ccrl_cli.pipelines.generation.type_scores import score_types_if_needed
from ccrl_cli.pipelines.labelling.labels import Labelled, load_labelled
from ccrl_cli.pipelines.report import report
from ccrl_cli.pipelines.training.outcome import ROUNDS_FILE, TrainOutcome
from ccrl_cli.pipelines.training.rounds import train_rounds
from ccrl_cli.pipelines.training.train import TrainOptions
from ccrl_cli.pipelines.training.warmup import warmup
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

T = TypeVar("T")

NUM_BINS = 5
"""Bins of confidence in the closing table."""


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step of a run.

    Attributes:
        name: ``warmup``, ``generate``, ``score types``, ``train`` or ``evaluate``.
        seconds: wall time of the call that finished it.
        skipped: it was done before this call.
    """

    name: str
    seconds: float
    skipped: bool


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run ends with.

    Attributes:
        steps: the steps in order, with their times.
        curriculum: pseudo-labels by confidence, and the stages.
        training: what the training did.
        evaluation: F1 of target and source, before and after.
        rounds: what each round was, with scores; empty for a training of a single round.
        finding: what came of it, and what must be said beside it.
        files: what lies where.
        reportable: False with a mock backend or a part of the data.
    """

    steps: tuple[StepTime, ...]
    curriculum: CurriculumView
    training: TrainOutcome
    evaluation: EvaluationResult
    rounds: tuple[Mapping[str, Any], ...]
    finding: Finding
    files: Mapping[str, str]
    reportable: bool


def run(
    profile: Profile, *, reporter: Reporter, origins: Mapping[str, str] | None = None
) -> RunResult:
    """Do all steps of a profile; what is done is not done again.

    Warm up if asked, generate, score types if the labels need it, order, train, evaluate, report.

    Raises:
        CcrlError: what its steps raise; a further call goes on where this one stopped.
    """
    data = SplitReader()
    clock = _Clock(RunDirectory(profile.run_path))
    if profile.warmup.enabled:
        if warmup_is_ready(profile):
            clock.skip("warmup")
        else:
            clock.time("warmup", lambda: warmup(profile, reporter=reporter, data=data))
    made = clock.time("generate", lambda: _generate(profile, reporter, data), done=_nothing_new)
    if profile.confidence.reads_type_scores:
        clock.time(
            "score types",
            lambda: score_types_if_needed(profile, reporter=reporter, data=data),
            done=lambda result: result is None or result.scored == 0,
        )
    labelled = load_labelled(profile, load_domain(profile, "target", data))
    view = show_curriculum(
        profile, num_bins=NUM_BINS, reporter=reporter, data=data, labelled=labelled
    )
    options = TrainOptions(resume=True, origins=origins or {})
    trained = clock.time(
        "train",
        lambda: train_rounds(
            profile, options, reporter=reporter, data=data, labels=labelled.labels
        ),
        done=lambda outcome: outcome.already_done,
    )
    scores = clock.time(
        "evaluate",
        lambda: evaluate(profile, reporter=reporter, origins=origins, data=data),
        done=lambda result: result.answered == 0,
    )
    rounds = score_rounds(profile, reporter=reporter, data=data)
    reportable = made.reportable and trained.reportable and scores.reportable
    evaluation = RunDirectory(profile.run_path).read_evaluation()
    _report(profile, reporter, data, labelled)
    return RunResult(
        steps=tuple(clock.steps),
        curriculum=view,
        training=trained,
        evaluation=scores,
        rounds=tuple(rounds),
        finding=run_finding({**evaluation, "reportable": reportable}),
        files=_files(profile),
        reportable=reportable,
    )


def _generate(profile: Profile, reporter: Reporter, data: SplitReader) -> GenerateResult:
    return generate(profile, GenerateOptions(resume=True), reporter=reporter, data=data)


def _report(profile: Profile, reporter: Reporter, data: SplitReader, labelled: Labelled) -> None:
    """Write the page, which takes a second; say so where its packages are missing."""
    try:
        report(
            [profile.run_path],
            title=profile.report.title,
            reporter=reporter,
            data=data,
            labelled=labelled,
        )
    except PreconditionError as error:
        reporter.warn(f"no page was written: {error.message}")


def _nothing_new(result: GenerateResult) -> bool:
    return not sum(result.generated.values())


class _Clock:
    """Times the steps and keeps the times in the run directory, for calls that skip them."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self.steps: list[StepTime] = []

    def time(
        self, name: str, work: Callable[[], T], *, done: Callable[[T], bool] = lambda _: False
    ) -> T:
        """Do a step; if it found everything done, its time is that of the call that did it."""
        started = time.perf_counter()
        result = work()
        if done(result):
            self.skip(name)
            return result
        seconds = time.perf_counter() - started
        with self._directory as run:
            run.mark_done(f"run-{name}", "", seconds=round(seconds, 1))
        self.steps.append(StepTime(name, round(seconds, 1), skipped=False))
        return result

    def skip(self, name: str) -> None:
        """Note a step that was done before."""
        mark = self._directory.steps().get(f"run-{name}")
        self.steps.append(StepTime(name, mark.seconds if mark else 0.0, skipped=True))


def _files(profile: Profile) -> dict[str, str]:
    directory = RunDirectory(profile.run_path)
    places = {
        "completions": profile.store_path,
        "warm-up": warmup_path(profile),
        "adapter": directory.adapter_path,
        "rounds": directory.path / ROUNDS_FILE,
        "step records": directory.journal_path("metrics"),
        "stage records": directory.journal_path("stages"),
        "scores": directory.evaluation_path,
        "target predictions": directory.predictions_path("target-after"),
        "source predictions": directory.predictions_path("source-after"),
        "page": directory.report_path,
    }
    return {name: str(place) for name, place in places.items() if place.exists()}
