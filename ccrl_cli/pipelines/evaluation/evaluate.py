"""Evaluate: answers of the starting policy and of the trained adapter, scored by spans."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.metrics import forgetting
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval
from ccrl_cli.data.catalog import SplitReader
from ccrl_cli.errors import UsageError
from ccrl_cli.generators.registry import SERVERS
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.domains import Role
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.common.weights import adapter_digest, starting_weights, trained_weights
from ccrl_cli.pipelines.evaluation.answering import (
    ROLES,
    Phase,
    View,
    Way,
    answer_views,
    stored_predictions,
)
from ccrl_cli.pipelines.evaluation.decoding import Decode
from ccrl_cli.pipelines.evaluation.scoring import Scores, f1_difference, score_predictions
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

PHASES: tuple[Phase, ...] = ("before", "after")
MEANS: tuple[Decode, ...] = ("greedy", "typed", "vote", "majority")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Scores of answers that are decoded in another way than greedily.

    Attributes:
        before: of the starting policy; None when not evaluated.
        after: of the trained adapter; None when not evaluated.
        delta_f1: F1 after minus before, paired by sentence, with its interval.
    """

    before: Scores | None
    after: Scores | None
    delta_f1: Interval | None


@dataclass(frozen=True, slots=True)
class DomainEvaluation:
    """Scores of one domain.

    Attributes:
        data: the data set.
        digest: SHA-256 of the sentences scored.
        split: which of its splits.
        mode: ``transductive`` (scored on the very inputs that training saw, gold unseen) or
            ``held-out``.
        before: scores of the starting policy's greedy answers; None when not evaluated.
        after: scores of the trained adapter's; None when not evaluated.
        delta_f1: F1 after minus before, paired by sentence, with its interval.
        decoded: the same of other ways of decoding: ``typed``, ``vote``, ``majority``.
        over_labeller: what training adds to the labeller alone: F1 after, decoded as the profile
            says, minus F1 of the start decoded by ``vote``, paired by sentence.
    """

    data: str
    digest: str
    split: str
    mode: str
    before: Scores | None
    after: Scores | None
    delta_f1: Interval | None
    decoded: Mapping[str, Decoded] = field(default_factory=dict)
    over_labeller: Interval | None = None

    @property
    def labeller(self) -> Scores | None:
        """Scores of the start decoded as labels are made."""
        return self.decoded["vote"].before if "vote" in self.decoded else None


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What ``evaluation.json`` holds.

    Attributes:
        split: role of the split scored.
        reportable: False when only a part of a split was scored.
        created: UTC time.
        domains: scores by role, ``target`` and ``source``.
        forgetting: source F1 before minus after; None when one of them is missing.
        decode: how the profile decodes answers.
        seconds: wall time of this call.
        answered: sentences that this call answered; others were answered before.
    """

    split: str
    reportable: bool
    created: str
    domains: Mapping[Role, DomainEvaluation]
    forgetting: float | None
    decode: str
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
        decode: another way of decoding than the profile's, for every domain that is scored.
        majority: also score what K samples a sentence agree on, without type evidence.
    """

    phases: Sequence[Phase] | None = None
    roles: Sequence[Role] = ROLES
    adapter: Path | None = None
    decode: Decode | None = None
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

    Greedily always; the target also as the profile decodes, and by the labeller: the start
    decoded by ``vote``. What was answered before with the same weights, prompts and sentences is
    not answered again.

    Args:
        profile: the profile.
        options: which weights and domains, and how; None: all that there are.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifest of a new run.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: a package, the model, the adapter or gold labels are missing.
        UsageError: the backend asks a server.
    """
    options = options or EvaluateOptions()
    if profile.evaluation.backend in SERVERS:
        raise UsageError(
            f"`ccrl evaluate` scores weights, and {profile.evaluation.backend} asks a server",
            hint="`ccrl predict` with it, and score the file with --predictions FILE --gold FILE",
        )
    start = starting_weights(profile, profile.model.name, reporter)
    trained = options.adapter or RunDirectory(profile.run_path).adapter_path
    phases = options.phases
    if phases is None:
        phases = PHASES if options.adapter or trained.is_dir() else ("before",)
        if "after" not in phases:
            reporter.info(f"{profile.run_path} has no trained adapter: the start alone is scored")
    weights: dict[Phase, Weights] = {"before": start}
    if "after" in phases or (trained / "adapter_config.json").is_file():
        weights["after"] = trained_weights(start, trained)
    ways = [way for phase in phases for way in _ways(profile, options, phase, weights[phase])]
    known = [Way(phase, weights[phase], means) for phase in weights for means in MEANS]
    request = Request(ways, tuple(options.roles), known)
    return evaluate_ways(profile, request, reporter=reporter, origins=origins, data=data)


def _ways(
    profile: Profile, options: EvaluateOptions, phase: Phase, weights: Weights
) -> Iterator[Way]:
    """Yield the ways in which the weights of a phase are scored."""
    yield Way(phase, weights)
    if options.decode is not None:
        if options.decode != "greedy":
            yield Way(phase, weights, options.decode)
    else:
        yield from profile_ways(profile, phase, weights)
    if options.majority:
        yield Way(phase, weights, "majority")


def profile_ways(profile: Profile, phase: Phase, weights: Weights) -> Iterator[Way]:
    """Yield how the target is answered besides greedily: as the profile says, and by the labeller.

    The labeller is the start decoded by ``vote``. It is scored where labels are taken from type
    scores, so that a run always says what training adds to it.
    """
    decode = profile.evaluation.decode
    labels = phase == "before" and profile.confidence.reads_type_scores
    for means in ("typed", "vote"):
        if means == decode or (means == "vote" and labels):
            yield Way(phase, weights, means, ("target",))


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be answered and scored.

    Attributes:
        ways: weights and how they answer.
        roles: domains that are scored.
        known: further ways whose answers, if the run has them, are scored too.
    """

    ways: Sequence[Way]
    roles: tuple[Role, ...] = ROLES
    known: Sequence[Way] = ()


def evaluate_ways(
    profile: Profile,
    request: Request,
    *,
    reporter: Reporter,
    origins: Mapping[str, str] | None = None,
    data: SplitReader | None = None,
) -> EvaluationResult:
    """Answer in the given ways, and score every answer that the run has.

    Args:
        profile: the profile.
        request: the ways.
        reporter: told of progress.
        origins: origin of each value of the profile, for the manifest of a new run.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: a package, the model or gold labels are missing.
    """
    started = time.perf_counter()
    data = data or SplitReader()
    views = {role: View.load(profile, role, data) for role in request.roles}
    with RunDirectory(profile.run_path) as run:
        if not run.manifest_path.exists():
            domain = views[request.roles[0]].domain
            run.write_manifest(run_manifest(profile, domain, origins or {}))
        answered = answer_views(profile, run, list(views.values()), request.ways, reporter)
        domains = {role: _score(profile, run, view, request) for role, view in views.items()}
        result = EvaluationResult(
            split=profile.evaluation.split,
            reportable=all(view.split.counts.truncated == 0 for view in views.values()),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            domains=domains,
            forgetting=_forgotten(domains.get("source")),
            decode=profile.evaluation.decode,
            seconds=round(time.perf_counter() - started, 1),
            answered=answered,
        )
        run.write_evaluation(_document(run, result, request))
    return result


def _forgotten(source: DomainEvaluation | None) -> float | None:
    if source is None or source.before is None or source.after is None:
        return None
    return forgetting(source.before.f1, source.after.f1)


def _score(profile: Profile, run: RunDirectory, view: View, request: Request) -> DomainEvaluation:
    """Return the scores of what a run knows of a domain."""
    types = view.domain.labels
    # A way that was asked for says which weights stand behind a name.
    ways = {str(way): way for way in (*request.known, *request.ways)}
    found = {name: stored_predictions(profile, run, view, way) for name, way in ways.items()}

    def rng(name: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(profile.run.seed, "bootstrap", view.role, name))

    def scores(name: str) -> Scores | None:
        answers = found.get(name)
        return score_predictions(answers, types, rng("interval")) if answers else None

    def difference(one: str, other: str) -> Interval | None:
        after, before = found.get(one), found.get(other)
        return f1_difference(after, before, rng("paired")) if after and before else None

    decoded: dict[str, Decoded] = {
        means: Decoded(
            scores(f"before-{means}"),
            scores(f"after-{means}"),
            difference(f"after-{means}", f"before-{means}"),
        )
        for means in MEANS
        if any(found.get(f"{phase}-{means}") for phase in PHASES)
    }
    decode = profile.evaluation.decode
    ours = "after" if decode == "greedy" else f"after-{decode}"
    return DomainEvaluation(
        data=view.split.name,
        digest=view.split.digest,
        split=view.split.split,
        mode=view.mode,
        before=scores("before"),
        after=scores("after"),
        delta_f1=difference("after", "before"),
        decoded=decoded,
        over_labeller=difference(ours, "before-vote"),
    )


def _document(run: RunDirectory, result: EvaluationResult, request: Request) -> dict[str, Any]:
    """Return the content of ``evaluation.json``; a domain not scored this time keeps its scores.

    ``adapter`` is the digest of the adapter that was scored last as ``after``.
    """
    document = {"adapter": None, **asdict(result)}
    if run.evaluation_path.exists():
        before = run.read_evaluation()
        kept = {k: v for k, v in before["domains"].items() if k not in request.roles}
        document["domains"] = {**kept, **document["domains"]}
        document["adapter"] = before.get("adapter")
    for way in request.ways:
        if str(way) == "after":
            document["adapter"] = way.weights.digest
    return document


def scores_other_adapter(run: RunDirectory, evaluation: Mapping[str, Any]) -> bool:
    """Return whether scores of a run belong to another adapter than the one it has now."""
    scored = evaluation.get("adapter")
    if scored is None or not (run.adapter_path / "adapter_config.json").is_file():
        return False
    return bool(scored != adapter_digest(run.adapter_path))
