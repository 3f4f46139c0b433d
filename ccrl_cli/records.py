"""Frozen records that cross layers. Plain data: no behaviour beyond small derived values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Outcome = Literal["valid", "repaired", "invalid"]
Finish = Literal["stop", "length", "error"]


def content_id(text: str) -> str:
    """Return the 16 hexadecimal digits that identify an input by its text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """A mention as a model writes it: surface text and type identifier."""

    text: str
    type: str


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A mention placed on tokens: half-open token range ``[start, end)`` and type identifier."""

    start: int
    end: int
    type: str


@dataclass(frozen=True, slots=True)
class Example:
    """One input sentence.

    Attributes:
        text: the sentence as it is shown to a model.
        tokens: T tokens, in order of appearance in ``text``.
        offsets: T half-open character ranges of the tokens in ``text``.
        gold: gold spans over tokens, or None for an unlabelled input.
        cuts: characters at which a mention that begins or ends inside a word has cut it in two
            tokens.

    Text and character ranges are what a sentence is; tokens are a view of them, cut finer where a
    mention needs it (see ``core.alignment.cut_tokens``).
    """

    text: str
    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    gold: tuple[Span, ...] | None = None
    cuts: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """Content identifier (16 hex digits): equal texts are one input."""
        return content_id(self.text)

    def without_gold(self) -> Example:
        """Return the same input as training code must see it: no gold, no word cut for it."""
        if not self.cuts:
            return replace(self, gold=None)
        offsets: list[tuple[int, int]] = []
        for start, end in self.offsets:
            if offsets and start in self.cuts and offsets[-1][1] == start:
                offsets[-1] = (offsets[-1][0], end)
            else:
                offsets.append((start, end))
        tokens = tuple(self.text[start:end] for start, end in offsets)
        return Example(self.text, tokens, tuple(offsets))

    def span_text(self, span: Span) -> str:
        """Return the surface text that a span covers."""
        return self.text[self.offsets[span.start][0] : self.offsets[span.end - 1][1]]

    def gold_entities(self) -> tuple[Entity, ...]:
        """Return the gold mentions in text order; raises ValueError on an unlabelled input."""
        if self.gold is None:
            raise ValueError(f"input {self.id} has no gold labels")
        return tuple(Entity(self.span_text(s), s.type) for s in sorted(self.gold))


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer.

    Attributes:
        mean_logprob: mean log-probability (nats) of the sampled tokens under the untempered model.
        num_tokens: sampled tokens, the end token included.
        finish: ``stop`` (end token), ``length`` (cut at the limit) or ``error``.
        reasoning: what a server hands out apart from the answer.
        reason: why there is no answer (finish ``error``), in the server's own words.
    """

    text: str
    mean_logprob: float | None
    num_tokens: int
    finish: Finish
    reasoning: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Parse:
    """What a completion says: its outcome and its mentions, in the order written.

    Mentions of unknown type are kept (they are wrong predictions, not missing ones) and counted.
    """

    outcome: Outcome
    entities: tuple[Entity, ...] = ()
    num_unknown_types: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Alignment:
    """Mentions placed on tokens, and those that the text does not contain.

    Attributes:
        spans: placed mentions, in text order.
        hallucinated: mentions that the text has no place for.
        num_inside: placed mentions that begin or end inside a word.
        num_folded: placed mentions that differ from the text in case, quotes or dashes.
    """

    spans: tuple[Span, ...]
    hallucinated: tuple[Entity, ...] = ()
    num_inside: int = 0
    num_folded: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a completion store: K completions of one input by one model."""

    input_id: str
    text: str
    model: str
    completions: tuple[Completion, ...]
    identity: Mapping[str, Any]
    pseudo_label: tuple[Entity, ...] = ()
    confidence: float = 0.0
    created: str = ""
    seconds: float = 0.0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PseudoLabel:
    """The model's own label of one input.

    Attributes:
        entities: mentions used as the target.
        abstained: mentions that count neither for nor against (vote share between the limits).
        votes: every mention seen, with its share of the K completions.
        confidence: value of the named metric, in [0, 1].
        metric: name of the confidence metric.
        rule: ``majority`` or ``entity_vote``.
        num_completions: K, invalid completions included.
        num_invalid: completions that did not parse.
    """

    input_id: str
    entities: tuple[Entity, ...]
    confidence: float
    metric: str
    rule: str
    num_completions: int
    num_invalid: int = 0
    abstained: tuple[Entity, ...] = ()
    votes: tuple[tuple[Entity, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one comparison; the ratios follow from them (fractions, not percent)."""

    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    @property
    def precision(self) -> float:
        """Share of predictions that are right; 0 if none was made but some were due."""
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found else float(self.false_negatives == 0)

    @property
    def recall(self) -> float:
        """Share of gold mentions that were found; 0 if none was due but some were found."""
        due = self.true_positives + self.false_negatives
        return self.true_positives / due if due else float(self.false_positives == 0)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; F1(nothing, nothing) = 1."""
        total = 2 * self.true_positives + self.false_positives + self.false_negatives
        return 2 * self.true_positives / total if total else 1.0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )
