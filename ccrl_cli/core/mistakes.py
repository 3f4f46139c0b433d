"""What is right and wrong in one sentence: gold and predicted spans side by side, for reading.

Scores come from :mod:`ccrl_cli.core.metrics`; this names the kinds of mistakes behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["right", "type", "boundary", "missed", "spurious"]


@dataclass(frozen=True, slots=True, order=True)
class CharSpan:
    """A mention in a text: half-open character range ``[start, end)`` and type."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class JudgedSpan:
    """A span with what the other side says about it.

    Attributes:
        span: the span.
        verdict: ``right`` (same range and type), ``type`` (same range, other type), ``boundary``
            (overlaps a span of the other side), and else ``missed`` (gold) or ``spurious``.
    """

    span: CharSpan
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """Both sides of one sentence in text order, and predicted mentions that have no place."""

    gold: tuple[JudgedSpan, ...]
    predicted: tuple[JudgedSpan, ...]
    num_hallucinated: int = 0

    @property
    def num_wrong(self) -> int:
        """False positives, hallucinated mentions included, and false negatives."""
        sides = (*self.gold, *self.predicted)
        return sum(item.verdict != "right" for item in sides) + self.num_hallucinated

    @property
    def num_right(self) -> int:
        """True positives."""
        return sum(item.verdict == "right" for item in self.predicted)

    @property
    def f1(self) -> float:
        """F1 of this sentence; 1 where nothing was due and nothing was said."""
        total = 2 * self.num_right + self.num_wrong
        return 2 * self.num_right / total if total else 1.0


def judge(
    gold: Iterable[CharSpan], predicted: Iterable[CharSpan], num_hallucinated: int = 0
) -> Judgement:
    """Compare the spans of one sentence.

    Args:
        gold: gold spans.
        predicted: predicted spans.
        num_hallucinated: predicted mentions that could not be placed on the text.
    """
    due, made = sorted(gold), sorted(predicted)
    return Judgement(
        tuple(JudgedSpan(span, _verdict(span, made, "missed")) for span in due),
        tuple(JudgedSpan(span, _verdict(span, due, "spurious")) for span in made),
        num_hallucinated,
    )


def _verdict(span: CharSpan, others: Sequence[CharSpan], alone: Verdict) -> Verdict:
    if span in others:
        return "right"
    if any((other.start, other.end) == (span.start, span.end) for other in others):
        return "type"
    if any(other.start < span.end and span.start < other.end for other in others):
        return "boundary"
    return alone


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a text; `span` is None outside all spans."""

    text: str
    span: JudgedSpan | None = None


def segments(text: str, spans: Sequence[JudgedSpan]) -> tuple[Segment, ...]:
    """Cut a text at its spans; the pieces joined are the text.

    Spans that begin inside an earlier one, or beyond the text, are left out.
    """
    pieces: list[Segment] = []
    position = 0
    for item in sorted(spans, key=lambda item: item.span):
        start, end = item.span.start, item.span.end
        if start < position or end > len(text) or start >= end:
            continue
        if start > position:
            pieces.append(Segment(text[position:start]))
        pieces.append(Segment(text[start:end], item))
        position = end
    if position < len(text):
        pieces.append(Segment(text[position:]))
    return tuple(pieces)
