"""Report: gather what runs left behind and write one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.discrimination import auroc_interval
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.errors import CcrlError, PreconditionError
from ccrl_cli.findings import Finding
from ccrl_cli.findings.comparisons import ComparedArms
from ccrl_cli.findings.labels import confidence_finding
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.comparison.compare import compare_runs
from ccrl_cli.pipelines.curriculum.show import learning_signals
from ccrl_cli.pipelines.evaluation.evaluate import scores_other_adapter
from ccrl_cli.pipelines.labelling.labels import Labelled, load_labelled
from ccrl_cli.pipelines.labelling.quality import label_quality_by_bin, score_labels
from ccrl_cli.pipelines.training.outcome import ROUNDS, ROUNDS_FILE
from ccrl_cli.records import Score
from ccrl_cli.report.drawing import require_report_packages
from ccrl_cli.report.page import focus_of, render_page
from ccrl_cli.report.values import ROLES, LabelBin, LabelFacts, RoundFacts, RunFacts
from ccrl_cli.store.atomic import write_text
from ccrl_cli.store.ownership import refuse_over_store
from ccrl_cli.store.predictions import read_predictions
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What was written.

    Attributes:
        path: the page.
        bytes: its size.
        finding: its answer in a sentence, and what must be said beside it.
        reportable: False if any run says that its numbers are not to be reported.
        runs: names of the runs on it.
        figures: names of the figures on it.
    """

    path: str
    bytes: int
    finding: Finding
    reportable: bool
    runs: tuple[str, ...]
    figures: tuple[str, ...]


def report(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    title: str | None = None,
    compared: ComparedArms | None = None,
    reporter: Reporter,
    data: SplitReader | None = None,
    labelled: Labelled | None = None,
) -> ReportResult:
    """Write the page of one run, or of several that are compared.

    Args:
        folders: run directories; the first of the curriculum arm, else the first, is shown in full.
        output: file to write; None: ``report.html`` in the run's directory, or beside several.
        title: heading; None: what the first run's profile says, else the names of the runs.
        compared: comparison of these runs. None: curriculum and naive-rl are compared
            as `ccrl baselines compare` does it, where both are here.
        reporter: told of what could not be read.
        data: reads the splits of the command; None: this call reads its own.
        labelled: completions and labels of the run shown in full, if they are derived already.

    Raises:
        PreconditionError: a folder is no run, or a package is missing.
        IntegrityError: a file of a run is damaged.
    """
    require_report_packages()
    paths = list(dict.fromkeys(Path(folder) for folder in folders))
    runs, warnings = _gather_all(paths, data, labelled)
    for warning in warnings:
        reporter.warn(warning)
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    page = render_page(
        runs,
        title=title or _title(runs),
        created=created,
        warnings=tuple(warnings),
        compared=compared or compare_runs(paths),
    )
    target = output or _place(paths)
    refuse_over_store(target)
    try:
        write_text(target, page.html)
    except OSError as error:
        raise PreconditionError(
            f"{target} cannot be written: {error.strerror}", hint="choose another --output FILE"
        ) from error
    return ReportResult(
        path=str(target),
        bytes=len(page.html.encode("utf-8")),
        finding=page.finding,
        reportable=all(bool((run.evaluation or {}).get("reportable")) for run in runs),
        runs=tuple(run.name for run in runs),
        figures=page.figures,
    )


def _gather_all(
    paths: Sequence[Path], data: SplitReader | None, labelled: Labelled | None
) -> tuple[list[RunFacts], list[str]]:
    """Return every run, that in focus with its labels and rounds, and what could not be read."""
    warnings: list[str] = []
    runs = [_gather(path, warnings) for path in paths]
    focus = focus_of(runs)
    place = runs.index(focus)
    focus = replace(focus, labels=_labels(paths[place], focus.manifest, warnings, data, labelled))
    runs[place] = replace(focus, rounds=_rounds(paths[place], focus, warnings, data))
    return runs, warnings


def _place(paths: Sequence[Path]) -> Path:
    """Return where the page goes: into the one run, or beside the first of several."""
    if len(paths) == 1:
        return RunDirectory(paths[0]).report_path
    return paths[0].resolve().parent / "report.html"


def _title(runs: Sequence[RunFacts]) -> str:
    stated = ((runs[0].manifest.get("profile") or {}).get("report") or {}).get("title")
    if stated:
        return str(stated)
    return runs[0].name if len(runs) == 1 else f"{runs[0].name} and {len(runs) - 1} more"


def _gather(path: Path, warnings: list[str]) -> RunFacts:
    """Read everything of one run; what is missing is named in `warnings`."""
    run = RunDirectory(path)
    name = path.resolve().name
    manifest = run.read_manifest()
    marks = run.steps()
    evaluation = run.read_evaluation() if run.evaluation_path.exists() else None
    if evaluation is None:
        warnings.append(f"{name} has no evaluation.json: `ccrl evaluate` makes it")
    elif (mark := marks.get("train")) is not None and isinstance(mark.result, dict):
        # Scores of a whole split are still not to be reported if mock labels were trained on.
        trained = bool(mark.result.get("reportable", True))
        evaluation["reportable"] = bool(evaluation.get("reportable")) and trained
    if evaluation is not None and scores_other_adapter(run, evaluation):
        warnings.append(f"{name} was scored with another adapter than its own: `ccrl evaluate`")
    predictions = {
        (role, when): read_predictions(run.predictions_path(f"{role}-{when}"))
        for role in ROLES
        for when in ("before", "after")
        if run.predictions_path(f"{role}-{when}").exists()
    }
    return RunFacts(
        name=name,
        manifest=manifest,
        evaluation=evaluation,
        metrics=run.read_journal("metrics"),
        stages=run.read_journal("stages"),
        predictions=predictions,
        seconds={step: mark.seconds for step, mark in marks.items()},
    )


def _labels(
    path: Path,
    manifest: Mapping[str, Any],
    warnings: list[str],
    data: SplitReader | None,
    labelled: Labelled | None = None,
) -> LabelFacts | None:
    """Derive the run's pseudo-labels again from its store; None where that is not possible."""
    try:
        profile = _profile(path, manifest)
        return label_facts(profile, data, labelled)
    except (CcrlError, ValueError) as error:
        warnings.append(f"the pseudo-labels of {path.resolve().name} are not shown: {error}")
        return None


def _rounds(
    path: Path, focus: RunFacts, warnings: list[str], data: SplitReader | None
) -> tuple[RoundFacts, ...]:
    """Return what each round of a run was; the first has the run's own labels."""
    place = path / ROUNDS_FILE
    if not place.exists():
        return ()
    document = json.loads(place.read_text(encoding="utf-8"))
    found = []
    for row in document["rounds"]:
        run = RunDirectory(path / ROUNDS / str(row["round"]))
        label_f1 = row.get("oracle_label_f1")  # as `ccrl run` scored it
        if label_f1 is None:
            labels = focus.labels
            if row["round"] > 1:
                labels = _labels(run.path, run.read_manifest(), warnings, data)
            label_f1 = labels.f1 if labels else None
        # A run whose weights are those of one round alone has scored that round.
        kept = document["kept"] == [row["round"]]
        scored = run.read_evaluation() if run.evaluation_path.exists() else None
        scores = replace(focus, evaluation=focus.evaluation if kept else scored)
        found.append(
            RoundFacts(
                number=row["round"],
                steps=row["steps"],
                label_f1=label_f1,
                agreement=row["agreement"],
                changed_share=row["changed_share"],
                target_f1=scores.f1("target", "after"),
                source_f1=scores.f1("source", "after"),
            )
        )
    return tuple(found)


def _profile(path: Path, manifest: Mapping[str, Any]) -> Profile:
    """Return the run's own profile, at the place where its directory is now."""
    from ccrl_cli.config.schema import Profile

    values = dict(manifest.get("profile") or {})
    folder = path.resolve()
    values["run"] = {**values.get("run", {}), "dir": str(folder.parent), "name": folder.name}
    return Profile.model_validate(values)


def label_facts(
    profile: Profile, data: SplitReader | None = None, labelled: Labelled | None = None
) -> LabelFacts:
    """Return the pseudo-labels of a profile with their quality where gold exists.

    Args:
        profile: the profile.
        data: reads the splits of the command; None: this call reads its own.
        labelled: its completions and labels, if they are derived already.

    Raises:
        PreconditionError: the store or the data cannot be found.
        IntegrityError: the store is damaged.
        ValueError: the confidence cannot be computed from these completions.
    """
    domain = load_domain(profile, "target", data)
    labelled = labelled or load_labelled(profile, domain)
    samples, found = labelled.samples, labelled.labels
    scores = score_labels(found.labels, samples.examples, domain.labels)
    signals = learning_signals(profile, found, samples)
    bins = label_quality_by_bin(found.labels, scores, signals)
    total = sum((item.score for item in scores.values()), Score())
    judged = tuple(
        (found.labels[key].confidence, item.exact, item.score.f1) for key, item in scores.items()
    )
    return LabelFacts(
        metric=profile.confidence.metric,
        rule=profile.confidence.label,
        confidences=tuple(label.confidence for label in found.labels.values()),
        judged=judged,
        bins=tuple(
            LabelBin(part.low, part.high, part.count, part.oracle_f1, part.oracle_exact)
            for part in bins
        ),
        f1=total.f1 if scores else None,
        exact=sum(item.exact for item in scores.values()) / len(scores) if scores else None,
        finding=_finding(profile, judged),
        num_missing=found.num_missing,
        num_invalid=found.num_invalid,
        num_completions=found.num_completions,
    )


def _finding(profile: Profile, judged: Sequence[tuple[float, bool, float]]) -> str | None:
    """Return what confidence is worth, in a sentence; None without gold."""
    if not judged:
        return None
    right = [float(exact) for _, exact, _ in judged]
    rng = np.random.default_rng(derive_seed(profile.run.seed, "auroc"))
    auroc = auroc_interval([confidence for confidence, _, _ in judged], right, rng)
    return confidence_finding(auroc, int(sum(right)), len(right))
