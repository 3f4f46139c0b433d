"""What finished arms left behind, read and checked for a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.metrics import sentence_score
from ccrl_cli.core.statistics import FloatArray, count_array, micro_f1
from ccrl_cli.data.catalog import without_duplicates
from ccrl_cli.errors import CcrlError, IntegrityError, PreconditionError
from ccrl_cli.findings.runs import decoded_scores
from ccrl_cli.pipelines.common.domains import Role, load_domain
from ccrl_cli.pipelines.comparison.arms import RECIPES
from ccrl_cli.pipelines.evaluation.answering import ROLES
from ccrl_cli.pipelines.labelling.labels import load_labels
from ccrl_cli.pipelines.labelling.quality import score_labels
from ccrl_cli.pipelines.training.outcome import ARM_STEP
from ccrl_cli.records import Score
from ccrl_cli.store.predictions import PredictionRow, read_predictions
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True)
class FinishedArm:
    """One finished (arm, seed) pair.

    Attributes:
        arm: the recipe.
        seed: seed of its training.
        start: identity of the weights that it began with, after any warm-up.
        run_dir: its run directory.
        facts: what the queue noted of it: planned and taken updates and rollouts.
        decode: how the profile decodes answers.
        decodes: how those were decoded that it is compared by, by role: the profile's way where it
            was scored so, else greedily; an arm that is a way of decoding has its own.
        counts: (S, 3) counts by sentence of what it ends with, decoded that way, by role.
        data: data sets, by role.
        digests: what identifies the scored sentences, by role.
        modes: ``transductive`` or ``held-out``, by role.
        f1: F1 that it ends with, decoded that way, by role.
        greedy_f1: F1 of its greedy answers, by role; empty for an arm that is a way of decoding.
        forgetting: source F1 before minus after; 0 for an arm without training.
        kl: last measured KL to the start (nats a token), or None.
        seconds: of its training, from the step records.
        drawn: input ids that its rollouts were drawn for, with repetitions; of the first round.
        reportable: whether its numbers may be reported.
    """

    arm: str
    seed: int
    start: str
    run_dir: Path
    facts: Mapping[str, Any]
    decode: str
    decodes: Mapping[Role, str]
    counts: Mapping[Role, FloatArray]
    data: Mapping[Role, str]
    digests: Mapping[Role, str]
    modes: Mapping[Role, str]
    f1: Mapping[Role, float]
    greedy_f1: Mapping[Role, float]
    forgetting: float
    kl: float | None
    seconds: float
    drawn: tuple[str, ...]
    reportable: bool


def finished_arms(folders: Sequence[Path]) -> tuple[FinishedArm, ...]:
    """Return every finished pair in some folders of arms, in the order of the table.

    Args:
        folders: such as ``runs/NAME/arms``, a run directory in each of their folders.

    Raises:
        PreconditionError: no arm is finished.
        IntegrityError: a run is damaged.
    """
    found = []
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            arm = read_arm(RunDirectory(path))
            if arm is not None:
                found.append(arm)
    if not found:
        raise PreconditionError(
            f"no arm in {', '.join(map(str, folders))} is finished, so there is nothing to compare",
            hint="run `ccrl baselines run-all` first",
        )
    order = list(RECIPES)
    found.sort(key=lambda item: (order.index(item.arm), item.start, item.seed))
    return tuple(found)


def read_arm(run: RunDirectory) -> FinishedArm | None:
    """Return the finished pair that a run directory holds; None if it holds none.

    Raises:
        IntegrityError: the run is damaged.
    """
    if not run.manifest_path.exists() or not run.evaluation_path.exists():
        return None
    mark = run.steps().get(ARM_STEP)
    if mark is None or run.read_manifest().get("arm") not in RECIPES:
        return None
    return _read(run, mark.result)


def profile_of(item: FinishedArm) -> Profile:
    """Return the profile that a finished arm was trained with.

    Raises:
        IntegrityError: its manifest holds none that can be read.
    """
    from ccrl_cli.config.schema import Profile

    try:
        return Profile.model_validate(RunDirectory(item.run_dir).read_manifest().get("profile"))
    except ValueError as error:
        raise IntegrityError(
            f"the manifest of {item.run_dir} holds no profile of this version",
            hint="compare it with the version that wrote it",
        ) from error


def check_comparable(found: Sequence[FinishedArm]) -> None:
    """Raise IntegrityError unless all scored the same sentences alike and trained at one budget."""
    first = found[0]
    for item in found:
        if item.decode != first.decode:
            raise IntegrityError(
                f"{item.run_dir} decodes by {item.decode}, {first.run_dir} by {first.decode}",
                hint="run `ccrl baselines run-all` again with one profile",
            )
        for role in ROLES:
            if item.digests[role] != first.digests[role]:
                raise IntegrityError(
                    f"{item.run_dir} and {first.run_dir} scored other {role} sentences",
                    hint="run `ccrl baselines run-all` again with one profile",
                )
    trained = [item for item in found if RECIPES[item.arm].trained]
    for kind, arms in (
        ("planned_updates", trained),
        ("planned_rollouts", [item for item in trained if item.facts["trainer"] == "grpo"]),
    ):
        for item in arms:
            if item.facts[kind] != arms[0].facts[kind]:
                words = kind.replace("_", " ")
                raise IntegrityError(
                    f"the arms have unequal budgets: {arms[0].run_dir} has {arms[0].facts[kind]} "
                    f"{words}, {item.run_dir} has {item.facts[kind]}",
                    hint="run `ccrl baselines run-all --overwrite`, or remove the older one",
                )


def sentence_counts_of(rows: Sequence[PredictionRow], where: Path) -> FloatArray:
    """Return (S, 3) true positives, false positives and false negatives of stored predictions.

    Raises:
        IntegrityError: a sentence has no gold labels.
    """
    scores = []
    for row in rows:
        if row.gold is None:
            raise IntegrityError(f"{where} has a sentence without gold labels: {row.input_id}")
        scores.append(sentence_score(row.gold, row.predicted, len(row.hallucinated)))
    return count_array(scores)


def _read(run: RunDirectory, facts: Mapping[str, Any]) -> FinishedArm:
    manifest, evaluation = run.read_manifest(), run.read_evaluation()
    metrics = run.read_journal("metrics")
    kl = [row["kl"] for row in metrics if row.get("kl") is not None]
    domains = {role: evaluation["domains"].get(role) or {} for role in ROLES}
    decode = str(evaluation.get("decode") or "greedy")
    arm = str(manifest["arm"])
    greedy = {role: _end(run, evaluation, role, "greedy") for role in ROLES}
    own = RECIPES[arm].decode  # what it ends with is not greedy then
    ends = dict(greedy)
    decodes: dict[Role, str] = dict.fromkeys(ROLES, own or "greedy")
    if decode != "greedy" and own is None:
        for role in ROLES:
            scored = decoded_scores(domains[role], decode, _phase(domains[role]))
            if role == "target" or scored:  # the source may be scored greedily alone
                ends[role], decodes[role] = _end(run, evaluation, role, decode), decode
    return FinishedArm(
        arm=arm,
        seed=int(manifest["seed"]),
        start=str(facts.get("start", "")),
        run_dir=run.path,
        facts=facts,
        decode=decode,
        decodes=decodes,
        counts={role: counts for role, (counts, _) in ends.items()},
        data={role: str(domains[role].get("data", "")) for role in ROLES},
        digests={role: str(domains[role]["digest"]) for role in ROLES},
        modes={role: str(domains[role]["mode"]) for role in ROLES},
        f1={role: f1 for role, (_, f1) in ends.items()},
        greedy_f1={} if own else {role: f1 for role, (_, f1) in greedy.items()},
        forgetting=float(evaluation.get("forgetting") or 0.0),
        kl=float(kl[-1]) if kl else None,
        seconds=_seconds(metrics),
        drawn=tuple(
            key for row in metrics if row.get("round", 1) == 1 for key in row.get("inputs", ())
        ),
        reportable=bool(evaluation.get("reportable")) and bool(facts.get("reportable", True)),
    )


def _end(
    run: RunDirectory, evaluation: Mapping[str, Any], role: Role, decode: str
) -> tuple[FloatArray, float]:
    """Return (S, 3) counts by sentence and F1 of what a run ends with, decoded one way."""
    domain = evaluation["domains"].get(role) or {}
    when = _phase(domain)
    scores = decoded_scores(domain, decode, when)
    way = "" if decode == "greedy" else f"-{decode}"
    place = run.predictions_path(f"{role}-{when}{way}")
    if not place.exists() or not scores:
        raise IntegrityError(
            f"{run.path} lacks the {role} scores of {decode} answers",
            hint="run `ccrl baselines run-all` again",
        )
    counts, f1 = sentence_counts_of(read_predictions(place), place), float(scores["f1"])
    if abs(float(micro_f1(counts.sum(axis=0))) - f1) > 1e-9:
        raise IntegrityError(
            f"{place} and {run.evaluation_path} disagree on F1",
            hint="remove evaluation.json and run `ccrl baselines run-all` again",
        )
    return counts, f1


def _phase(domain: Mapping[str, Any]) -> str:
    """Return the phase that a run ends with: an arm without training ends where it began."""
    return "after" if domain.get("after") else "before"


def _seconds(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of all steps; they outlive a resume, unlike the time of a call."""
    return float(
        sum(
            value
            for row in metrics
            for name, value in row.items()
            if name.startswith("seconds_") and isinstance(value, int | float)
        )
    )


class LabelJudge:
    """F1 against gold of the labels that an arm was trained on; for reading alone."""

    def __init__(self, profile: Profile, reporter: Reporter) -> None:
        self._scores: dict[str, Score] = {}
        self._confidence: dict[str, float] = {}
        try:
            domain = load_domain(profile, "target")
            found = load_labels(profile, domain)
            examples, _ = without_duplicates(domain.split("train").examples)
            judged = score_labels(found.labels, {e.id: e for e in examples}, domain.labels)
        except CcrlError as error:
            reporter.warn(f"the quality of the labels is not shown: {error.message}")
            return
        self._scores = {key: item.score for key, item in judged.items()}
        self._confidence = dict(found.confidence)

    def f1(self, item: FinishedArm) -> float | None:
        """Return micro F1 of the labels, each counted as often as it was drawn.

        None for an arm that reads no labels, and where there is no gold. The arm ``oracle`` is 1
        by definition.
        """
        recipe = RECIPES[item.arm]
        if not recipe.trained or recipe.random_reward or recipe.name == "format-only":
            return None
        if recipe.uses_gold:
            return 1.0
        limit = float(item.facts.get("threshold", 0.0))
        keys = item.drawn or tuple(k for k, c in self._confidence.items() if c >= limit)
        known = [self._scores[key] for key in keys if key in self._scores]
        if not known:
            return None
        total = np.asarray(count_array(known)).sum(axis=0)
        return float(micro_f1(total))
