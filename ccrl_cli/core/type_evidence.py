"""Type evidence: how sure a model is of the *type* of a span, apart from the span itself.

Votes rank spans well and types hardly at all: a wrong type is often written by all K samples. Here
the model is asked for the type alone, and its habit of saying some types more than others is
taken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.records import Entity, Parse

FloatArray = NDArray[np.float64]

BLANK = "N/A"
"""What stands for a text that says nothing."""


@dataclass(frozen=True, slots=True)
class SpanScore:
    """Log-probabilities of the T type names for one span of a text.

    Attributes:
        text: the span as it was written.
        logprobs: log-probability of each type name (nats, summed over its tokens), up to a
            constant of the span.
    """

    text: str
    logprobs: tuple[float, ...]


def type_posterior(logprobs_st: ArrayLike, blank_t: ArrayLike) -> FloatArray:
    """Return P(type | span, text): softmax over types of log-probability minus that of the blank.

    Contextual calibration (Zhao 2102.09690) with a diagonal W and b = 0: the probability of each
    type for a text and span without content is divided out. Differs from the paper in that whole
    names are scored, not their first tokens.

    Args:
        logprobs_st: (S, T) log-probabilities of T type names for S spans; a constant a row plays
            no part.
        blank_t: (T,) the same with text and span blanked.

    Raises:
        ValueError: shapes differ, there is no type, or a value is not finite.
    """
    logprobs = np.asarray(logprobs_st, dtype=np.float64)
    blank = np.asarray(blank_t, dtype=np.float64)
    if logprobs.ndim != 2 or blank.shape != logprobs.shape[1:] or not len(blank):
        raise ValueError(
            f"log-probabilities {logprobs.shape} and blank {blank.shape} do not pair up"
        )
    if not (np.isfinite(logprobs).all() and np.isfinite(blank).all()):
        raise ValueError("a log-probability is not finite")
    scores = logprobs - blank
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def spans_to_score(aligner: Aligner, parses: Iterable[Parse]) -> tuple[str, ...]:
    """Return the spans of the text that completions name, in the order first seen.

    Spellings of one span are one; the first is taken. What the text does not hold is left out.
    """
    spans: dict[str, str] = {}
    for parse in parses:
        if parse.outcome == "invalid":
            continue
        for entity in parse.entities:
            key = mention_key(entity.text)
            if key not in spans and aligner.places(key):
                spans[key] = entity.text
    return tuple(spans.values())


def posteriors(
    scores: Sequence[SpanScore],
    blank: Sequence[float],
    types: Sequence[str],
    parses: Iterable[Parse],
) -> dict[tuple[str, str], float]:
    """Return the posterior of every mention that completions state, as a labeller takes them.

    A mention of an unknown type, or that the text does not hold, gets 0.

    Args:
        scores: scored spans of one input.
        blank: (T,) log-probabilities of the blank.
        types: T type identifiers, in the order of the scores.
        parses: completions of the input.

    Raises:
        ValueError: as :func:`type_posterior` does.
    """
    known: dict[str, Mapping[str, float]] = {}
    if scores:
        table = type_posterior([score.logprobs for score in scores], blank)
        for score, row in zip(scores, table.tolist(), strict=True):
            known[mention_key(score.text)] = dict(zip(types, row, strict=True))
    found: dict[tuple[str, str], float] = {}
    for parse in parses:
        for entity in parse.entities:
            key = mention_key(entity.text)
            found[key, entity.type] = known.get(key, {}).get(entity.type, 0.0)
    return found


def chosen_types(
    scores: Sequence[SpanScore], blank: Sequence[float], types: Sequence[str]
) -> dict[str, str]:
    """Return the type of highest posterior of each scored span, by normalised text.

    Args:
        scores: scored spans of one input.
        blank: (T,) log-probabilities of the blank.
        types: T type identifiers, in the order of the scores; the first wins a tie.

    Raises:
        ValueError: as :func:`type_posterior` does.
    """
    if not scores:
        return {}
    best = type_posterior([score.logprobs for score in scores], blank).argmax(axis=1)
    return {
        mention_key(score.text): types[place]
        for score, place in zip(scores, best.tolist(), strict=True)
    }


def retype(parses: Sequence[Parse], types: Mapping[str, str]) -> list[Parse]:
    """Return completions whose spans bear the types that are given, so that votes are for spans.

    A span that a completion names under several types is named once, or as often as under the type
    that it has most often. Spans without a given type stay as they are.

    Args:
        parses: completions of one input.
        types: type by normalised text, as :func:`chosen_types` gives it.
    """
    return [_retyped(parse, types) for parse in parses]


def _retyped(parse: Parse, types: Mapping[str, str]) -> Parse:
    stated: Counter[tuple[str, str]] = Counter()
    taken: Counter[str] = Counter()
    entities = []
    for entity in parse.entities:
        key = mention_key(entity.text)
        if key not in types:
            entities.append(entity)
            continue
        stated[key, entity.type] += 1
        if stated[key, entity.type] > taken[key]:
            taken[key] += 1
            entities.append(Entity(entity.text, types[key]))
    return replace(parse, entities=tuple(entities))
