"""Evaluate: answers of the starting policy and of the trained adapter, scored by spans."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ccrl_cli.core.metrics import forgetting
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval
from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.pipelines.common.domains import Role
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.common.weights import adapter_digest, starting_weights, trained_weights
from ccrl_cli.pipelines.evaluation.answering import View, Way, answer_views, stored_predictions
from ccrl_cli.pipelines.evaluation.scoring import (
    Prediction,
    Scores,
    f1_difference,
    score_predictions,
)
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

Phase = Literal["before", "after"]
ROLES: tuple[Role, ...] = ("target", "source")
PHASES: tuple[Phase, ...] = ("before", "after")
MAJORITY = "-majority"
"""Suffix of the names of what K samples agree on, beside the greedy answer of the same weights."""


@dataclass(frozen=True, slots=True)
class DomainEvaluation:
    """Scores of one domain.

    Attributes:
        data: the data set.
        digest: SHA-256 of the sentences scored.
        split: which of its splits.
        mode: ``transductive`` (scored on the very inputs that training saw, gold unseen) or
            ``held-out``.
        before: scores of the starting policy; None when not evaluated.
        after: scores of the trained adapter; None when not evaluated.
        delta_f1: F1 after minus before, paired by sentence, with its interval.
        majority_before: scores of what K samples of the starting policy agree on, if asked for.
        majority_after: the same of the trained adapter.
    """

    data: str
    digest: str
    split: str
    mode: str
    before: Scores | None
    after: Scores | None
    delta_f1: Interval | None
    majority_before: Scores | None = None
    majority_after: Scores | None = None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What ``evaluation.json`` holds.

    Attributes:
        split: role of the split scored.
        reportable: False when only a part of a split was scored.
        created: UTC time.
        domains: scores by role, ``target`` and ``source``.
        forgetting: source F1 before minus after; None when one of them is missing.
        seconds: wall time of this call.
        answered: sentences that this call answered; others were answered before.
    """

    split: str
    reportable: bool
    created: str
    domains: Mapping[str, DomainEvaluation]
    forgetting: float | None
    seconds: float
    answered: int
    schema: int = 1


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Flags of ``ccrl evaluate`` that are no part of a profile.

    Attributes:
        phases: which weights; None: the starting policy, and the adapter if there is one.
        roles: which domains.
        adapter: an adapter to evaluate in place of the run's own.
        majority: also draw K samples a sentence and score what they agree on.
    """

    phases: Sequence[Phase] | None = None
    roles: Sequence[Role] = ROLES
    adapter: Path | None = None
    majority: bool = False


def evaluate(
    profile: Profile,
    options: EvaluateOptions | None = None,
    *,
    reporter: Reporter,
    origins: Mapping[str, str] | None = None,
    data: SplitReader | None = None,
) -> EvaluationResult:
    """Answer the scored splits of both domains, before and after training.

    What was answered before with the same weights, prompts and sentences is not answered again.

    Args:
        profile: the profile.
        options: which weights and domains, and how; None: all that there are.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifest of a new run.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: a package, the model, the adapter or gold labels are missing.
    """
    start = starting_weights(profile, profile.model.name, reporter)
    options = options or EvaluateOptions()
    trained = options.adapter or RunDirectory(profile.run_path).adapter_path
    phases = options.phases
    if phases is None:
        phases = PHASES if options.adapter or trained.is_dir() else ("before",)
        if "after" not in phases:
            reporter.info(f"{profile.run_path} has no trained adapter: the start alone is scored")
    weights = {"before": start}
    if "after" in phases or (trained / "adapter_config.json").is_file():
        weights["after"] = trained_weights(start, trained)
    votes = {"": 0, MAJORITY: profile.generation.num_completions}
    known = [Way(name + end, weights[name], k) for name in weights for end, k in votes.items()]
    wanted = {
        phase + end for phase in phases for end in (("", MAJORITY) if options.majority else ("",))
    }
    ways = [way for way in known if way.name in wanted]
    return evaluate_ways(
        profile,
        ways,
        reporter=reporter,
        roles=options.roles,
        origins=origins,
        known=known,
        data=data,
    )


def evaluate_ways(
    profile: Profile,
    ways: Sequence[Way],
    *,
    reporter: Reporter,
    roles: Sequence[Role] = ROLES,
    origins: Mapping[str, str] | None = None,
    known: Sequence[Way] | None = None,
    data: SplitReader | None = None,
) -> EvaluationResult:
    """Answer in the given ways, and score every answer that the run has.

    Args:
        profile: the profile.
        ways: weights and how they answer; their names are ``before``, ``after``, or one of them
            with ``-majority``.
        reporter: told of progress.
        roles: which domains.
        origins: origin of each value of the profile, for the manifest of a new run.
        known: these and others whose answers, if the run has them, are scored too.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: a package, the model or gold labels are missing.
    """
    started = time.perf_counter()
    data = data or SplitReader()
    views = {role: View.load(profile, role, data) for role in roles}
    with RunDirectory(profile.run_path) as run:
        if not run.manifest_path.exists():
            domain = views[roles[0]].domain
            run.write_manifest(run_manifest(profile, domain, origins or {}))
        answered = sum(
            answer_views(profile, run, list(views.values()), way, reporter) for way in ways
        )
        found = {
            (role, way.name): stored_predictions(profile, run, view, way)
            for role, view in views.items()
            for way in known or ways
        }
        result = _result(profile, views, found, time.perf_counter() - started, answered)
        run.write_evaluation(_document(run, result, roles, ways))
    return result


def _result(
    profile: Profile,
    views: Mapping[Role, View],
    found: Mapping[tuple[Role, str], list[Prediction] | None],
    seconds: float,
    answered: int,
) -> EvaluationResult:
    domains: dict[str, DomainEvaluation] = {
        role: _score(profile, view, found) for role, view in views.items()
    }
    source = domains.get("source")
    lost = None
    if source and source.before and source.after:
        lost = forgetting(source.before.f1, source.after.f1)
    return EvaluationResult(
        split=profile.evaluation.split,
        reportable=all(view.split.counts.truncated == 0 for view in views.values()),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        domains=domains,
        forgetting=lost,
        seconds=round(seconds, 1),
        answered=answered,
    )


def _score(
    profile: Profile,
    view: View,
    found: Mapping[tuple[Role, str], list[Prediction] | None],
) -> DomainEvaluation:
    types = view.domain.labels

    def rng(name: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(profile.run.seed, "bootstrap", view.role, name))

    scores = {
        name: score_predictions(answers, types, rng("interval")) if answers else None
        for (role, name), answers in found.items()
        if role == view.role
    }
    before, after = found.get((view.role, "before")), found.get((view.role, "after"))
    return DomainEvaluation(
        data=view.split.name,
        digest=view.split.digest,
        split=view.split.split,
        mode=view.mode,
        before=scores.get("before"),
        after=scores.get("after"),
        delta_f1=f1_difference(after, before, types, rng("paired")) if before and after else None,
        majority_before=scores.get("before" + MAJORITY),
        majority_after=scores.get("after" + MAJORITY),
    )


def _document(
    run: RunDirectory, result: EvaluationResult, roles: Sequence[Role], ways: Sequence[Way]
) -> dict[str, Any]:
    """Return the content of ``evaluation.json``; a domain not scored this time keeps its scores.

    ``adapter`` is the digest of the adapter that was scored last as ``after``.
    """
    document = {"adapter": None, **asdict(result)}
    if run.evaluation_path.exists():
        before = run.read_evaluation()
        kept = {k: v for k, v in before["domains"].items() if k not in roles}
        document["domains"] = {**kept, **document["domains"]}
        document["adapter"] = before.get("adapter")
    for way in ways:
        if way.name == "after":
            document["adapter"] = way.weights.digest
    return document


def scores_other_adapter(run: RunDirectory, evaluation: Mapping[str, Any]) -> bool:
    """Return whether scores of a run belong to another adapter than the one it has now."""
    scored = evaluation.get("adapter")
    if scored is None or not (run.adapter_path / "adapter_config.json").is_file():
        return False
    return bool(scored != adapter_digest(run.adapter_path))
