"""A prediction: what was said about one sentence, placed on its tokens and counted once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ccrl_cli.core.metrics import sentence_score
from ccrl_cli.core.placing import CharRange, TextPlacer, on_tokens
from ccrl_cli.errors import IntegrityError
from ccrl_cli.records import Alignment, Completion, Entity, Example, Outcome, Parse, Score, Span


@dataclass(frozen=True, slots=True)
class Placed:
    """A mention on the tokens of its sentence, and how sure it is.

    Attributes:
        span: token range and type.
        confidence: entity confidence in [0, 1]; None where nothing is known of it.
    """

    span: Span
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy says to one sentence, however its answers were decoded.

    Attributes:
        outcome: ``valid``, ``repaired`` or ``invalid``.
        entities: n mentions, in the order written.
        confidences: n entity confidences; empty: none is known.
        text: the answer as it was written, or a label as it would be.
        finish: ``stop`` or ``length``.
    """

    outcome: Outcome
    entities: tuple[Entity, ...] = ()
    confidences: tuple[float | None, ...] = ()
    text: str = ""
    finish: str = "stop"

    @classmethod
    def of(cls, parse: Parse, given: Completion) -> Answer:
        """Return one completion as it stands.

        Each entity is as sure as the whole: exp of the mean log-probability of its tokens.
        """
        sure = None if given.mean_logprob is None else math.exp(given.mean_logprob)
        confidences = (sure,) * len(parse.entities)
        return cls(parse.outcome, parse.entities, confidences, given.text, given.finish)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was said about one sentence. Made by the functions below, which place and count.

    Attributes:
        example: the sentence, with its gold spans if it has any; its tokens are cut where a placed
            mention needs it.
        outcome: ``valid``, ``repaired`` or ``invalid``.
        placed: mentions on the tokens, in text order.
        hallucinated: mentions that the text does not hold, or whose places are taken.
        counts: compared with the gold spans; None without any.
        completion: the answer as it was written; None for another system's.
        finish: ``stop`` or ``length``.
        num_inside: placed mentions that begin or end inside a word.
        num_folded: placed mentions that differ from the text in case, quotes or dashes.
    """

    example: Example
    outcome: Outcome
    placed: tuple[Placed, ...]
    hallucinated: tuple[Entity, ...]
    counts: Score | None
    completion: str | None
    finish: str
    num_inside: int = 0
    num_folded: int = 0

    @property
    def alignment(self) -> Alignment:
        """Spans and hallucinated mentions."""
        spans = tuple(item.span for item in self.placed)
        return Alignment(spans, self.hallucinated, self.num_inside, self.num_folded)

    def mentions(self, shift: int = 0) -> list[dict[str, Any]]:
        """Return the placed mentions with their character ranges, moved by `shift`."""
        return [
            {**_ranged(self.example, item.span, shift), "confidence": _rounded(item.confidence)}
            for item in self.placed
        ]

    def row(self) -> dict[str, Any]:
        """Return a line of ``predictions-*.jsonl``; offsets count characters."""
        gold = self.example.gold
        return {
            "input_id": self.example.id,
            "text": self.example.text,
            "outcome": self.outcome,
            "completion": self.completion,
            "finish": self.finish,
            "gold": None if gold is None else [_ranged(self.example, s) for s in sorted(gold)],
            "predicted": self.mentions(),
            "hallucinated": [{"text": e.text, "type": e.type} for e in self.hallucinated],
            "num_inside": self.num_inside,
            "num_folded": self.num_folded,
        }


@dataclass(frozen=True, slots=True)
class Mention:
    """A mention that has its place in the text.

    Attributes:
        place: its characters.
        type: its type.
        confidence: entity confidence in [0, 1]; None where nothing is known of it.
    """

    place: CharRange
    type: str
    confidence: float | None = None


def make_prediction(
    example: Example,
    outcome: Outcome,
    mentions: Iterable[Mention],
    hallucinated: Sequence[Entity] = (),
    *,
    completion: str | None = None,
    finish: str = "stop",
) -> Prediction:
    """Return a prediction: mentions on tokens, compared with gold where there is any."""
    ordered = sorted(mentions, key=lambda m: (m.place.start, m.place.end, m.type))
    view, spans = on_tokens(example, [(m.place.start, m.place.end, m.type) for m in ordered])
    counts = None
    if view.gold is not None:
        counts = sentence_score(view.gold, spans, len(hallucinated))
    return Prediction(
        view,
        outcome,
        tuple(Placed(span, m.confidence) for span, m in zip(spans, ordered, strict=True)),
        tuple(hallucinated),
        counts,
        completion,
        finish,
        num_inside=sum(m.place.inside for m in ordered),
        num_folded=sum(m.place.folded for m in ordered),
    )


def place_mentions(
    example: Example,
    entities: Sequence[Entity],
    confidences: Sequence[float | None] = (),
    taken: Iterable[tuple[int, int]] = (),
) -> tuple[list[Mention], list[Entity]]:
    """Place mentions as :class:`ccrl_cli.core.placing.TextPlacer` does.

    Args:
        example: the sentence.
        entities: n mentions, in the order written.
        confidences: n confidences; empty: none is known.
        taken: character ranges that are not free.

    Returns:
        The placed mentions, and those that have no place.
    """
    known = confidences or (None,) * len(entities)
    places = TextPlacer(example).place([entity.text for entity in entities], taken)
    mentions, loose = [], []
    for entity, place, confidence in zip(entities, places, known, strict=True):
        if place is None:
            loose.append(entity)
        else:
            mentions.append(Mention(place, entity.type, confidence))
    return mentions, loose


def place_answer(example: Example, answer: Answer) -> Prediction:
    """Return an answer to a sentence as a prediction."""
    mentions, loose = place_mentions(example, answer.entities, answer.confidences)
    return make_prediction(
        example, answer.outcome, mentions, loose, completion=answer.text, finish=answer.finish
    )


def read_prediction(example: Example, row: Mapping[str, Any]) -> Prediction:
    """Return a line of ``predictions-*.jsonl`` that was written for this very sentence.

    Raises:
        IntegrityError: a key is missing, or a range does not lie in the text.
    """
    try:
        mentions = [
            Mention(CharRange(row["start"], row["end"]), row["type"], row.get("confidence"))
            for row in row["predicted"]
        ]
        loose = [Entity(item["text"], item["type"]) for item in row["hallucinated"]]
        made = make_prediction(
            example,
            row["outcome"],
            mentions,
            loose,
            completion=row["completion"],
            finish=row["finish"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"a stored prediction of input {example.id} is damaged: {error!r}",
            hint="remove its predictions file, and `ccrl evaluate` makes it again",
        ) from error
    inside, folded = row.get("num_inside", 0), row.get("num_folded", 0)
    return replace(made, num_inside=inside, num_folded=folded)


def _ranged(example: Example, span: Span, shift: int = 0) -> dict[str, Any]:
    return {
        "text": example.span_text(span),
        "type": span.type,
        "start": example.offsets[span.start][0] + shift,
        "end": example.offsets[span.end - 1][1] + shift,
    }


def _rounded(confidence: float | None) -> float | None:
    return None if confidence is None else round(confidence, 4)
