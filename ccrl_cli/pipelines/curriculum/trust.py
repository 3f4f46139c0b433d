"""How many pseudo-labels are worth trusting: the surest shares of them, and what is known of each.

For reading; training never sees what is measured against gold here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.core.balance import Kind, mix
from ccrl_cli.core.statistics import Interval
from ccrl_cli.pipelines.labelling.quality import LabelScore, mean
from ccrl_cli.records import Score

TOP_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Surest shares that are looked at."""

#: Fewer right (or wrong) labels than this make AUROC weak evidence whatever its interval says.
FEW = 10

_SMALLEST = 10

#: Total variation from which the mix of the first labels is worth a sentence.
SKEWED = 0.25


@dataclass(frozen=True, slots=True)
class TopView:
    """The surest labels.

    Attributes:
        share: of all labels.
        count: labels.
        lowest_confidence: of them.
        mean_confidence: of them; if calibrated, the share of them that is expected to be right.
        oracle_f1: micro F1 against gold; None without gold, as all that follows.
        oracle_precision: micro precision.
        oracle_exact: share that equals gold.
    """

    share: float
    count: int
    lowest_confidence: float
    mean_confidence: float
    oracle_f1: float | None
    oracle_precision: float | None
    oracle_exact: float | None


def top_labels(
    order: Sequence[str], confidence: Mapping[str, float], scores: Mapping[str, LabelScore]
) -> tuple[TopView, ...]:
    """Return the surest shares of the labels.

    Args:
        order: all labelled inputs, surest first.
        confidence: by input id.
        scores: those of the labels that gold exists for.
    """
    views = []
    for share in TOP_SHARES:
        chosen = order[: max(1, round(share * len(order)))]
        judged = [scores[key] for key in chosen if key in scores]
        total = sum((item.score for item in judged), Score())
        views.append(
            TopView(
                share=share,
                count=len(chosen),
                lowest_confidence=min(confidence[key] for key in chosen),
                mean_confidence=mean(confidence[key] for key in chosen) or 0.0,
                oracle_f1=total.f1 if judged else None,
                oracle_precision=total.precision if judged else None,
                oracle_exact=mean(item.exact for item in judged),
            )
        )
    return tuple(views)


def describe_trust(
    order: Sequence[str],
    confidence: Mapping[str, float],
    scores: Mapping[str, LabelScore],
    *,
    trust: float,
    calibrated: bool,
) -> str:
    """Return how many labels are worth trusting, in a sentence.

    With gold: the largest surest set whose micro F1 reaches `trust`. Without: the labels whose
    confidence does, and what that says.

    Args:
        order: all labelled inputs, surest first.
        confidence: by input id.
        scores: those of the labels that gold exists for.
        trust: F1, or confidence, from which a label is worth trusting.
        calibrated: whether confidence went through a calibrator.
    """
    if scores:
        return _measured(order, scores, trust)
    number = sum(confidence[key] >= trust for key in order)
    counted = (
        f"{number} of {len(order)} labels ({number / len(order):.0%}) have a confidence of "
        f"{trust:.0%} or more"
    )
    if calibrated:
        expected = sum(confidence[key] for key in order)
        return f"{counted}; about {expected:.0f} of all labels are expected to be right"
    return (
        f"{counted}; that is agreement of the model with itself, not accuracy: "
        "`ccrl curriculum calibrate` measures accuracy on labelled inputs"
    )


def _measured(order: Sequence[str], scores: Mapping[str, LabelScore], trust: float) -> str:
    total = Score()
    reached = 0
    best = (0.0, 0)
    for number, key in enumerate(order, start=1):
        total += scores[key].score if key in scores else Score()
        if number < min(_SMALLEST, len(order)):
            continue
        best = max(best, (total.f1, number))
        if total.f1 >= trust:
            reached = number
    if reached:
        share = reached / len(order)
        return f"the surest {reached} labels ({share:.0%}) have an F1 of at least {trust:.0%}"
    return (
        f"no set of surest labels has an F1 of {trust:.0%}: the best is {best[0]:.1%}, "
        f"with the surest {best[1]}"
    )


def describe_auroc(auroc: Interval | None, num_right: int, total: int) -> str:
    """Return what an AUROC of confidence against exact match means, in a sentence.

    Args:
        auroc: the value with its interval; None if all labels are right, or all wrong.
        num_right: labels equal to gold.
        total: labels compared.
    """
    if auroc is None:
        number = "every label equals" if num_right else "no label equals"
        return f"{number} gold, so there is no AUROC of confidence against exact match"
    numbers = (
        f"its AUROC against exact match is {auroc.value:.2f} "
        f"({auroc.level:.0%} interval {auroc.low:.2f} to {auroc.high:.2f}"
    )
    if auroc.low <= 0.5 <= auroc.high:
        return f"confidence knows nothing here: {numbers} holds 0.5, which is chance)"
    if auroc.high < 0.5:
        text = f"confidence misleads here, surer labels are more often wrong: {numbers})"
    else:
        text = f"confidence ranks labels better than chance: {numbers})"
    few = min(num_right, total - num_right)
    if few < FEW:
        text += f"; weak evidence, only {few} of {total} labels are on one side"
    return text


def describe_mix(
    first: Sequence[Sequence[Kind]], labels: Sequence[Sequence[Kind]], *, balanced: bool
) -> str | None:
    """Return in what the labels that open first differ from all; None where they hardly do.

    Args:
        first: kinds of the labels that open first.
        labels: kinds of all labels.
        balanced: the order keeps types in balance already.
    """
    opened, whole = mix(first), mix(labels)
    gaps = {kind: opened.get(kind, 0.0) - share for kind, share in whole.items()}
    skew = sum(map(abs, gaps.values())) / 2
    if skew < SKEWED:
        return None
    most, least = max(gaps, key=gaps.__getitem__), min(gaps, key=gaps.__getitem__)
    told = ", ".join(
        f"{kind or 'no entity'} {opened.get(kind, 0.0):.0%} instead of {whole[kind]:.0%}"
        for kind in (most, least)
    )
    remedy = "" if balanced else '; curriculum.balance = "types" opens all types alike'
    return f"the labels that open first hold another mix than all, by {skew:.0%} ({told}){remedy}"
