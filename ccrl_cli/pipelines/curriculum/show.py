"""Curriculum: what a profile's store, confidence and pacing will make of training, before it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ccrl_cli.core.advantages import has_signal
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.balance import label_kinds, mix
from ccrl_cli.core.binning import bin_inputs
from ccrl_cli.core.curriculum import order_inputs
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
from ccrl_cli.pipelines.curriculum.plan import plan_entities, plan_schedule, training_order
from ccrl_cli.pipelines.curriculum.stages import (
    Judged,
    StageView,
    entity_stages,
    sentence_stages,
)
from ccrl_cli.pipelines.curriculum.trust import TopView, top_labels
from ccrl_cli.pipelines.labelling.labels import Labelled, LabelSet, load_labelled
from ccrl_cli.pipelines.labelling.quality import (
    BinView,
    LabelScore,
    label_quality_by_bin,
    mean,
    score_labels,
)
from ccrl_cli.pipelines.labelling.samples import SampleSet
from ccrl_cli.records import Parse, Score

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.data.catalog import SplitReader
    from ccrl_cli.reporting import Reporter

HISTOGRAM_BINS = 10

DEFAULT_TRUST = 0.5


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
        unit: what opens, ``entity`` or ``sentence``.
        pacing: shape of the open share.
        order: which of them open first.
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
    unit: str
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
    labelled: Labelled | None = None,
) -> CurriculumView:
    """Return what a profile's curriculum will do with the completions in its store.

    Args:
        profile: the profile.
        bins: rule of the bins, ``mass`` or ``fixed``.
        num_bins: B, at least 1.
        trust: F1, or without gold confidence, from which a label is worth trusting.
        reporter: told of missing inputs and of stages that cannot fill a step.
        data: reads the splits of the command; None: this call reads its own.
        labelled: completions and labels, if they are read and derived already.

    Raises:
        PreconditionError: there is no store, or it has no completion of these inputs.
        UsageError: the metric cannot be computed from these completions, or there is no bin.
        IntegrityError: the store is damaged.
    """
    if num_bins < 1:
        raise UsageError(f"{num_bins} bins are too few", hint="ask for at least one")
    domain = load_domain(profile, "target", data)
    labelled = labelled or load_labelled(profile, domain)
    found, labels = labelled.samples, labelled.labels
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
        **_plan(profile, labels, Judged(labels.confidence, scores, signals)),
        **_oracle(profile, labels, scores),
    )
    _warn(view, reporter)
    return view


def _plan(profile: Profile, labels: LabelSet, judged: Judged) -> dict[str, Any]:
    """Return what the view says of the training that is planned."""
    order = training_order(profile, labels.confidence, labels.ranks(profile))
    section = profile.curriculum
    plan: dict[str, Any] = {
        "unit": section.unit,
        "pacing": section.pacing,
        "order": section.order,
        "balance": section.balance if section.unit == "sentence" else "types",
        "mix_finding": None,
        "threshold": section.threshold,
        "num_left_out": len(labels.labels) - len(order),
        "num_steps": 0,
        "steps_from": "training.max_steps" if profile.training.max_steps else "training.epochs",
        "prompts_per_step": profile.training.prompts_per_step,
        "stages": (),
    }
    if not order:
        return plan
    entities = plan_entities(profile, labels, order)
    if entities is not None:
        stages = entity_stages(entities, order, judged)
        return {**plan, "num_steps": entities.schedule.num_steps, "stages": stages}
    schedule = plan_schedule(profile, len(order), len(labels.labels))
    kinds = [label_kinds([e.type for e in labels.labels[key].entities]) for key in order]
    return {
        **plan,
        "mix_finding": mix_finding(
            mix(kinds[: schedule.num_open(0)]), mix(kinds), balanced=section.balance == "types"
        ),
        "num_steps": schedule.num_steps,
        "stages": sentence_stages(schedule, order, kinds, judged),
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
    if short and view.unit == "sentence":
        reporter.warn(
            f"step 1 has {short[0].num_open} open inputs for {view.prompts_per_step} prompts: "
            "inputs repeat within a step"
        )
