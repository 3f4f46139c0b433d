"""Curriculum: what a profile's store, confidence and pacing will make of training, before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.advantages import has_signal
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.balance import Kind, label_kinds, mix, skews
from ccrl_cli.core.binning import bin_inputs
from ccrl_cli.core.curriculum import Schedule, order_inputs, stages
from ccrl_cli.core.discrimination import auroc_interval
from ccrl_cli.core.placing import view_for
from ccrl_cli.core.rewards import RewardWeights, Target, make_target, score
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import Interval
from ccrl_cli.errors import UsageError
from ccrl_cli.findings.labels import (
    confidence_finding,
    confident_labels,
    mix_finding,
    trusted_labels,
)
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.curriculum.plan import plan_schedule, training_order
from ccrl_cli.pipelines.curriculum.trust import TopView, top_labels
from ccrl_cli.pipelines.labelling.labels import LabelSet, load_labels
from ccrl_cli.pipelines.labelling.quality import (
    BinView,
    LabelScore,
    label_quality_by_bin,
    mean,
    score_labels,
)
from ccrl_cli.pipelines.labelling.samples import SampleSet, load_samples
from ccrl_cli.records import Parse, Score

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.reporting import Reporter

HISTOGRAM_BINS = 10

DEFAULT_TRUST = 0.5


@dataclass(frozen=True, slots=True)
class StageView:
    """A run of training steps over one open set; steps count from 1, both ends belong to it.

    Attributes:
        number: from 1.
        first_step: first step.
        last_step: last step.
        num_open: inputs that can be drawn.
        open_share: the same as a share of the inputs in the order.
        lowest_confidence: of the open inputs.
        passes: draws of the stage for each open input.
        signal_share: share of the open inputs whose stored completions do not all earn the same
            reward; the others have no gradient yet.
        skew: how far the mix of types (and empty labels) of the open labels is from that of all
            labels: total variation, 0 to 1.
        oracle_f1: micro F1 of the open labels against gold; None without gold.
        oracle_exact: share of the open labels that equal gold; None without gold.
    """

    number: int
    first_step: int
    last_step: int
    num_open: int
    open_share: float
    lowest_confidence: float
    passes: float
    signal_share: float
    skew: float
    oracle_f1: float | None
    oracle_exact: float | None


@dataclass(frozen=True, slots=True)
class CurriculumView:
    """What a curriculum will do; ratios are fractions. What reads gold labels is named oracle.

    Attributes:
        store: file of the completions.
        models: models whose completions were pooled.
        metric: name of the confidence.
        label: rule of the pseudo-labels.
        calibrator: calibrator that confidences went through, or ``none``.
        num_inputs: inputs with a pseudo-label.
        num_missing: training inputs without completions.
        num_completions: completions read.
        num_invalid: completions that did not parse.
        histogram: inputs by confidence, ten bins of equal width over [0, 1].
        bin_rule: ``mass`` or ``fixed``.
        bins: labels by confidence, least sure first.
        top: the surest shares of the labels.
        trust: F1, or without gold confidence, from which a label is worth trusting.
        trust_finding: how many labels are, in a sentence.
        signal_share: share of inputs whose stored completions do not all earn the same reward.
        pacing: shape of the open share.
        order: which inputs open first.
        balance: ``types`` where types are kept in balance by the order.
        mix_finding: in what the labels that open first differ from all, in a sentence; None where
            they hardly do.
        threshold: smallest confidence that is opened.
        num_left_out: inputs below the threshold.
        num_steps: training steps that are planned.
        steps_from: what decides them, ``training.max_steps`` or ``training.epochs``.
        prompts_per_step: inputs drawn in one step.
        stages: all of them, in order.
        oracle_count: labels that gold exists for.
        oracle_f1: micro F1 of all labels against gold; None without gold, as all that follows.
        oracle_exact: share of labels that equal gold.
        oracle_auroc: chance that a label equal to gold is surer than one that is not; None also
            if all are equal to it, or none is.
        oracle_finding: what that means, in a sentence.
        reportable: False with a mock backend or a cut set of inputs.
    """

    store: str
    models: tuple[str, ...]
    metric: str
    label: str
    calibrator: str
    num_inputs: int
    num_missing: int
    num_completions: int
    num_invalid: int
    histogram: tuple[int, ...]
    bin_rule: str
    bins: tuple[BinView, ...]
    top: tuple[TopView, ...]
    trust: float
    trust_finding: str
    signal_share: float
    pacing: str
    order: str
    balance: str
    mix_finding: str | None
    threshold: float
    num_left_out: int
    num_steps: int
    steps_from: str
    prompts_per_step: int
    stages: tuple[StageView, ...]
    oracle_count: int
    oracle_f1: float | None
    oracle_exact: float | None
    oracle_auroc: Interval | None
    oracle_finding: str | None
    reportable: bool


def show_curriculum(
    profile: Profile,
    *,
    bins: str = "mass",
    num_bins: int = 10,
    trust: float = DEFAULT_TRUST,
    reporter: Reporter,
    data: SplitReader | None = None,
) -> CurriculumView:
    """Return what a profile's curriculum will do with the completions in its store.

    Args:
        profile: the profile.
        bins: rule of the bins, ``mass`` or ``fixed``.
        num_bins: B, at least 1.
        trust: F1, or without gold confidence, from which a label is worth trusting.
        reporter: told of missing inputs and of stages that cannot fill a step.
        data: reads the splits of the command; None: this call reads its own.

    Raises:
        PreconditionError: there is no store, or it has no completion of these inputs.
        UsageError: the metric cannot be computed from these completions, or there is no bin.
        IntegrityError: the store is damaged.
    """
    if num_bins < 1:
        raise UsageError(f"{num_bins} bins are too few", hint="ask for at least one")
    domain = load_domain(profile, "target", data)
    found = load_samples(profile, domain)
    labels = load_labels(profile, domain, found)
    scores = score_labels(labels.labels, found.examples, domain.labels)
    signals = learning_signals(profile, labels, found)
    surest = order_inputs(labels.confidence, "confidence")
    calibrated = labels.calibrator != "none"
    view = CurriculumView(
        store=str(profile.store_path),
        models=labels.models,
        metric=profile.confidence.metric,
        label=profile.confidence.label,
        calibrator=labels.calibrator,
        num_inputs=len(labels.labels),
        num_missing=labels.num_missing,
        num_completions=labels.num_completions,
        num_invalid=labels.num_invalid,
        histogram=_histogram(list(labels.confidence.values())),
        bin_rule=bins,
        bins=label_quality_by_bin(labels.labels, scores, signals, bins=bins, num_bins=num_bins),
        top=top_labels(surest, labels.confidence, scores),
        trust=trust,
        trust_finding=trusted_labels(
            [s.score if (s := scores.get(k)) else None for k in surest], trust
        )
        if scores
        else confident_labels(list(labels.confidence.values()), trust, calibrated=calibrated),
        signal_share=mean(signals.values()) or 0.0,
        reportable=labels.reportable and profile.data.target.max_train_samples is None,
        **_plan(profile, labels, scores, signals),
        **_oracle(profile, labels, scores),
    )
    _warn(view, reporter)
    return view


def _plan(
    profile: Profile,
    labels: LabelSet,
    scores: Mapping[str, LabelScore],
    signals: Mapping[str, bool],
) -> dict[str, Any]:
    """Return what the view says of the training that is planned."""
    order = training_order(profile, labels.confidence, labels.ranks(profile))
    schedule = plan_schedule(profile, len(order), len(labels.labels)) if order else None
    kinds = [label_kinds([e.type for e in labels.labels[key].entities]) for key in order]
    return {
        "pacing": profile.curriculum.pacing,
        "order": profile.curriculum.order,
        "balance": profile.curriculum.balance,
        "mix_finding": mix_finding(
            mix(kinds[: schedule.num_open(0)]),
            mix(kinds),
            balanced=profile.curriculum.balance == "types",
        )
        if schedule
        else None,
        "threshold": profile.curriculum.threshold,
        "num_left_out": len(labels.labels) - len(order),
        "num_steps": schedule.num_steps if schedule else 0,
        "steps_from": "training.max_steps" if profile.training.max_steps else "training.epochs",
        "prompts_per_step": profile.training.prompts_per_step,
        "stages": _stages(schedule, order, kinds, (labels.confidence, scores, signals))
        if schedule
        else (),
    }


def _oracle(profile: Profile, labels: LabelSet, scores: Mapping[str, LabelScore]) -> dict[str, Any]:
    """Return what the view says of the labels against gold."""
    total = sum((item.score for item in scores.values()), Score())
    rng = np.random.default_rng(derive_seed(profile.run.seed, "auroc"))
    auroc, finding = _discrimination(labels, scores, rng)
    return {
        "oracle_count": len(scores),
        "oracle_f1": total.f1 if scores else None,
        "oracle_exact": mean(item.exact for item in scores.values()),
        "oracle_auroc": auroc,
        "oracle_finding": finding,
    }


def learning_signals(profile: Profile, labels: LabelSet, found: SampleSet) -> dict[str, bool]:
    """Return whether the stored completions of each input differ in what they would earn.

    A group of rollouts that all earn the same has no gradient. Stored completions were drawn at
    the temperature of generation, so this is a forecast.
    """
    section = profile.reward
    limit = profile.training.max_completion_tokens
    weights = RewardWeights(
        overlap=section.overlap,
        overlap_weight=section.overlap_weight,
        format_weight=section.format_weight,
        length_weight=section.length_weight,
        length_soft_tokens=max(1, limit // 2),
        length_limit_tokens=limit,
    )
    voted = section.overlap == "expected_f1"
    signals = {}
    for key, label in labels.labels.items():
        aligner = Aligner(view_for(found.examples[key].without_gold(), label.entities))
        votes = label.votes if voted else None
        target = make_target(aligner, label.entities, label.abstained, votes)
        signals[key] = _earn_differently(found.samples[key][0], target, weights)
    return signals


def _earn_differently(parses: Iterable[Parse], target: Target, weights: RewardWeights) -> bool:
    """Return whether two completions of an input differ in reward; most are not looked at."""
    rewards = (score(parse, target, weights)["total"] for parse in parses)
    first = next(rewards)
    return any(has_signal((first, other)) for other in rewards)


def _histogram(confidences: Sequence[float]) -> tuple[int, ...]:
    parts = bin_inputs(confidences, "fixed", num_bins=HISTOGRAM_BINS)
    return tuple(len(part.members) for part in parts)


def _stages(
    schedule: Schedule,
    order: Sequence[str],
    kinds: Sequence[Sequence[Kind]],
    known: tuple[Mapping[str, float], Mapping[str, LabelScore], Mapping[str, bool]],
) -> tuple[StageView, ...]:
    """Return the stages with what is open in each: sums over growing prefixes of the order.

    Args:
        schedule: how many are open when.
        order: input ids, first to open first.
        kinds: what each label holds, in that order.
        known: confidences, scores of the labels that gold exists for, and learning signals, by
            input id.
    """
    confidence, scores, signals = known
    judged = [scores.get(key) for key in order]
    lowest = list(accumulate((confidence[key] for key in order), min))
    sums = list(accumulate(item.score if item else Score() for item in judged))
    exact = list(accumulate(int(item is not None and item.exact) for item in judged))
    counts = list(accumulate(int(item is not None) for item in judged))
    lively = list(accumulate(int(signals[key]) for key in order))
    views = []
    parts = list(stages(schedule))
    for stage, skew in zip(parts, skews(kinds, [part.num_open for part in parts]), strict=True):
        last = stage.num_open - 1
        draws = (stage.end_step - stage.first_step) * schedule.prompts_per_step
        views.append(
            StageView(
                number=stage.number,
                first_step=stage.first_step + 1,
                last_step=stage.end_step,
                num_open=stage.num_open,
                open_share=stage.num_open / len(order),
                lowest_confidence=lowest[last],
                passes=draws / stage.num_open,
                signal_share=lively[last] / stage.num_open,
                skew=skew,
                oracle_f1=sums[last].f1 if counts[last] else None,
                oracle_exact=exact[last] / counts[last] if counts[last] else None,
            )
        )
    return tuple(views)


def _discrimination(
    labels: LabelSet, scores: Mapping[str, LabelScore], rng: np.random.Generator
) -> tuple[Interval | None, str | None]:
    """Return AUROC of confidence against exact match, and a sentence about it."""
    if not scores:
        return None, None
    right = [float(item.exact) for item in scores.values()]
    auroc = auroc_interval([labels.labels[key].confidence for key in scores], right, rng)
    return auroc, confidence_finding(auroc, int(sum(right)), len(right))


def _warn(view: CurriculumView, reporter: Reporter) -> None:
    if view.num_missing:
        total = view.num_inputs + view.num_missing
        reporter.warn(
            f"{view.num_missing} of {total} inputs have no completions: "
            "`ccrl generate --resume` makes them"
        )
    if not view.stages:
        reporter.warn(
            f"no input has a confidence of {view.threshold:g} or more: nothing would be trained on"
        )
    short = [stage for stage in view.stages if stage.num_open < view.prompts_per_step]
    if short:
        reporter.warn(
            f"step 1 has {short[0].num_open} open inputs for {view.prompts_per_step} prompts: "
            "inputs repeat within a step"
        )
