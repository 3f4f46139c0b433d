"""Scores of predictions against gold: spans, intervals, shares of what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ccrl_cli.core.alignment import spans_to_bio
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.statistics import (
    FloatArray,
    Interval,
    bootstrap_interval,
    count_array,
    paired_bootstrap,
)
from ccrl_cli.pipelines.evaluation.prediction import Prediction
from ccrl_cli.records import Alignment, Score

if TYPE_CHECKING:
    from ccrl_cli.core.metrics import Evaluation


@dataclass(frozen=True, slots=True)
class TypeScore:
    """Span scores of one type; fractions."""

    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Span scores of one model on one split; ratios are fractions, not percent.

    Attributes:
        f1: micro F1, hallucinated mentions among the false positives.
        f1_low: lower end of the 95 % bootstrap interval over sentences.
        f1_high: upper end.
        macro_f1: mean over the types that occur.
        seqeval_f1: seqeval, strict IOB2, after projection to tags, which drops hallucinated
            mentions; None where gold spans overlap or seqeval is not installed.
        num_inside: predicted mentions that begin or end inside a word of the text.
        num_folded: predicted mentions that differ from the text in case, quotes or dashes.
        hallucinated_share: of the predicted mentions.
        invalid_share: answers that are no list of mentions.
        repaired_share: answers that had to be mended to be read.
        truncated_share: answers cut at the limit of tokens.
        exact_share: inputs whose every mention is right.
        per_type: by type identifier.
    """

    f1: float
    f1_low: float
    f1_high: float
    precision: float
    recall: float
    macro_f1: float
    seqeval_f1: float | None
    num_sentences: int
    num_gold: int
    num_predicted: int
    num_hallucinated: int
    hallucinated_share: float
    invalid_share: float
    repaired_share: float
    truncated_share: float
    exact_share: float
    num_unknown_type: int
    per_type: Mapping[str, TypeScore]
    num_inside: int = 0
    num_folded: int = 0


def score_predictions(
    predictions: Sequence[Prediction], types: Sequence[str], rng: np.random.Generator
) -> Scores:
    """Return the scores of predictions whose inputs all have gold labels.

    Args:
        predictions: at least one.
        types: the label set.
        rng: source of the bootstrap.
    """
    gold = [prediction.example.gold or () for prediction in predictions]
    alignments = [prediction.alignment for prediction in predictions]
    result = score_spans(gold, alignments, types)
    interval = bootstrap_interval(sentence_counts(predictions), rng)
    total = len(predictions)

    def share(condition: Sequence[bool]) -> float:
        return sum(condition) / total

    return Scores(
        f1=result.micro.f1,
        f1_low=interval.low,
        f1_high=interval.high,
        precision=result.micro.precision,
        recall=result.micro.recall,
        macro_f1=result.macro_f1,
        seqeval_f1=seqeval_f1(predictions, alignments),
        num_sentences=total,
        num_gold=result.num_gold,
        num_predicted=result.num_predicted,
        num_hallucinated=result.num_hallucinated,
        hallucinated_share=result.hallucinated_share,
        invalid_share=share([p.outcome == "invalid" for p in predictions]),
        repaired_share=share([p.outcome == "repaired" for p in predictions]),
        truncated_share=share([p.finish == "length" for p in predictions]),
        exact_share=result.num_exact / total,
        num_unknown_type=result.num_unknown_type,
        per_type=_per_type(result),
        num_inside=sum(alignment.num_inside for alignment in alignments),
        num_folded=sum(alignment.num_folded for alignment in alignments),
    )


def _per_type(result: Evaluation) -> dict[str, TypeScore]:
    return {
        name: TypeScore(
            score.precision,
            score.recall,
            score.f1,
            gold=score.true_positives + score.false_negatives,
            predicted=score.true_positives + score.false_positives,
        )
        for name, score in result.per_type.items()
        if score != Score()
    }


def sentence_counts(predictions: Sequence[Prediction]) -> FloatArray:
    """Return (S, 3) true positives, false positives and false negatives by sentence.

    Raises:
        ValueError: a sentence has no gold labels.
    """
    counts = [prediction.counts for prediction in predictions]
    if any(score is None for score in counts):
        raise ValueError("a sentence without gold labels cannot be scored")
    return count_array(score for score in counts if score is not None)


def f1_difference(
    after: Sequence[Prediction],
    before: Sequence[Prediction],
    rng: np.random.Generator,
) -> Interval:
    """Return micro F1 after minus before on the same sentences, with its paired interval."""
    return paired_bootstrap(sentence_counts(after), sentence_counts(before), rng).difference


def seqeval_f1(predictions: Sequence[Prediction], alignments: Sequence[Alignment]) -> float | None:
    """Return strict IOB2 micro F1 by seqeval (Nakayama 2018); None where it cannot be had.

    It equals our micro F1 whenever nothing is hallucinated and there is any mention at all.
    """
    try:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2
    except ImportError:
        return None
    gold, predicted = [], []
    for prediction, alignment in zip(predictions, alignments, strict=True):
        length = len(prediction.example.tokens)
        try:
            gold.append(spans_to_bio(prediction.example.gold or (), length))
            predicted.append(spans_to_bio(alignment.spans, length))
        except ValueError:
            return None  # overlapping spans have no tags
    return float(f1_score(gold, predicted, mode="strict", scheme=IOB2, zero_division=0))
