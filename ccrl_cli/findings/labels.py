"""Findings about pseudo-labels: how many are worth trusting, and what confidence is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ccrl_cli.core.statistics import Interval
from ccrl_cli.records import Score

FEW_LABELS = 10
"""Fewer right (or wrong) labels than this make AUROC weak evidence whatever its interval says."""

CHANCE_WITHIN = 0.1
"""An interval of AUROC within this of 0.5 shows that confidence knows next to nothing."""

SKEWED = 0.25
"""Total variation from which the mix of the first labels is worth a sentence."""

_SMALLEST = 10


def confident_labels(confidences: Sequence[float], trust: float, *, calibrated: bool) -> str:
    """Return how many labels are worth trusting where there is no gold.

    Args:
        confidences: of all labels.
        trust: confidence from which a label is worth trusting.
        calibrated: whether confidence went through a calibrator.
    """
    total = len(confidences)
    number = sum(confidence >= trust for confidence in confidences)
    counted = f"{number} of {total} labels ({number / total:.0%}) are sure to {trust:.0%} or more"
    if calibrated:
        return f"{counted}; about {sum(confidences):.0f} of all labels are expected to be right"
    return (
        f"{counted}; that is agreement of the model with itself, not accuracy: "
        "`ccrl curriculum calibrate` measures accuracy on labelled inputs"
    )


def trusted_labels(scores: Sequence[Score | None], trust: float) -> str:
    """Return how many labels are worth trusting: the largest surest set of an F1.

    Args:
        scores: of the labels against gold, surest first; None where there is no gold.
        trust: micro F1 that the set must reach.
    """
    total = Score()
    reached = 0
    best = (0.0, 0)
    for number, score in enumerate(scores, start=1):
        total += score or Score()
        if number < min(_SMALLEST, len(scores)):
            continue
        best = max(best, (total.f1, number))
        if total.f1 >= trust:
            reached = number
    if reached:
        share = reached / len(scores)
        return f"the surest {reached} labels ({share:.0%}) have an F1 of at least {trust:.0%}"
    return (
        f"no set of surest labels has an F1 of {trust:.0%}: the best is {best[0]:.1%}, "
        f"with the surest {best[1]}"
    )


def confidence_finding(auroc: Interval | None, num_right: int, total: int) -> str:
    """Return what an AUROC of confidence against exact match means, in a sentence.

    That confidence knows nothing is said where it was shown: the whole interval is near chance. An
    interval that only holds 0.5 shows nothing either way.

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
    if auroc.high < 0.5:
        text = f"confidence misleads here, surer labels are more often wrong: {numbers})"
    elif auroc.low > 0.5:
        text = f"confidence ranks labels better than chance: {numbers})"
    elif auroc.low >= 0.5 - CHANCE_WITHIN and auroc.high <= 0.5 + CHANCE_WITHIN:
        text = f"confidence knows next to nothing here: {numbers}, all of it near 0.5, chance)"
    else:
        return (
            f"whether confidence ranks labels better than chance cannot be told with {total} "
            f"inputs, {num_right} of them right: {numbers} holds 0.5, which is chance)"
        )
    few = min(num_right, total - num_right)
    if few < FEW_LABELS:
        text += f"; weak evidence, only {few} of {total} labels are on one side"
    return text


def mix_finding(
    opened: Mapping[str | None, float], whole: Mapping[str | None, float], *, balanced: bool
) -> str | None:
    """Return in what the labels that open first differ from all; None where they hardly do.

    Args:
        opened: shares of types among the labels that open first; None stands for empty labels.
        whole: the same of all labels.
        balanced: the order keeps types in balance already.
    """
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
