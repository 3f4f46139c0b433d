"""The surest shares of the pseudo-labels, and what is known of each.

For reading; training never sees what is measured against gold here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.pipelines.labelling.quality import LabelScore, mean
from ccrl_cli.records import Score

TOP_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Surest shares that are looked at."""


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
