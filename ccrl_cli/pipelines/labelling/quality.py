"""Quality of pseudo-labels against gold, by confidence. For reading; training never sees it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ccrl_cli.core.alignment import mention_of
from ccrl_cli.core.binning import bin_inputs
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.placing import align_in_text
from ccrl_cli.records import Example, PseudoLabel, Score


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One pseudo-label against gold.

    Attributes:
        score: its spans against the gold spans; hallucinated mentions are false positives.
        exact: the label equals the gold label, nothing hallucinated.
        right: of each mention of the label, in its order, whether gold has it.
    """

    score: Score
    exact: bool
    right: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class BinView:
    """Pseudo-labels of similar confidence; ratios are fractions.

    Attributes:
        low: lower edge, or smallest confidence in a bin of equal mass.
        high: upper edge, or largest confidence in a bin of equal mass.
        count: inputs.
        mean_confidence: None in an empty bin, as all that follows.
        mean_entities: entities per label.
        empty_share: share of labels without entities.
        signal_share: share of inputs whose stored completions do not all earn the same reward:
            a group without spread has no gradient.
        oracle_count: inputs that have gold labels.
        oracle_f1: micro F1 of their labels against gold; None without gold, as all that follows.
        oracle_precision: micro precision.
        oracle_recall: micro recall.
        oracle_exact: share of labels that equal gold.
    """

    low: float
    high: float
    count: int
    mean_confidence: float | None
    mean_entities: float | None
    empty_share: float | None
    signal_share: float | None
    oracle_count: int
    oracle_f1: float | None
    oracle_precision: float | None
    oracle_recall: float | None
    oracle_exact: float | None


def score_labels(
    labels: Mapping[str, PseudoLabel], examples: Mapping[str, Example], types: Sequence[str]
) -> dict[str, LabelScore]:
    """Return the score of every label whose input has gold labels, by input id.

    Args:
        labels: pseudo-label by input id.
        examples: inputs by id, with their gold labels.
        types: the label set.
    """
    scores = {}
    for input_id, label in labels.items():
        example = examples.get(input_id)
        if example is None or example.gold is None:
            continue
        view, alignment = align_in_text(label.entities, example)
        compared = score_spans([view.gold or ()], [alignment], types)
        right = _in_gold(label, example)
        scores[input_id] = LabelScore(compared.micro, compared.num_exact == 1, right)
    return scores


def _in_gold(label: PseudoLabel, example: Example) -> tuple[bool, ...]:
    """Return of each mention of a label whether gold has it, each copy of gold used once."""
    left = Counter(mention_of(entity) for entity in example.gold_entities())
    found = []
    for mention in map(mention_of, label.entities):
        found.append(left[mention] > 0)
        left[mention] -= 1
    return tuple(found)


def label_quality_by_bin(
    labels: Mapping[str, PseudoLabel],
    scores: Mapping[str, LabelScore],
    signals: Mapping[str, bool],
    *,
    bins: str = "mass",
    num_bins: int = 10,
) -> tuple[BinView, ...]:
    """Return pseudo-labels by confidence, least sure first, with their quality where gold exists.

    Args:
        labels: pseudo-label by input id.
        scores: those of them that gold exists for, see :func:`score_labels`.
        signals: whether an input's completions differ in reward, by input id.
        bins: ``mass`` (equal mass, equal confidences together) or ``fixed`` (equal width).
        num_bins: B, at least 1.

    Raises:
        ValueError: there are no labels, no bin, or the rule is unknown.
    """
    listed = list(labels.values())
    parts = bin_inputs([label.confidence for label in listed], bins, num_bins=num_bins)
    return tuple(
        _view((part.low, part.high), [listed[place] for place in part.members], scores, signals)
        for part in parts
    )


def _view(
    edges: tuple[float, float],
    members: Sequence[PseudoLabel],
    scores: Mapping[str, LabelScore],
    signals: Mapping[str, bool],
) -> BinView:
    judged = [scores[label.input_id] for label in members if label.input_id in scores]
    total = sum((item.score for item in judged), Score())
    return BinView(
        low=edges[0],
        high=edges[1],
        count=len(members),
        mean_confidence=mean(label.confidence for label in members),
        mean_entities=mean(len(label.entities) for label in members),
        empty_share=mean(not label.entities for label in members),
        signal_share=mean(signals[label.input_id] for label in members),
        oracle_count=len(judged),
        oracle_f1=total.f1 if judged else None,
        oracle_precision=total.precision if judged else None,
        oracle_recall=total.recall if judged else None,
        oracle_exact=mean(item.exact for item in judged),
    )


def mean(values: Iterable[float]) -> float | None:
    """Return the mean, or None of nothing."""
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None
