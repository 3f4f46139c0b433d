"""Type evidence: how sure a model is of the *type* of a span, apart from the span itself.

Votes rank spans well and types hardly at all: a wrong type is often written by all K samples. Here
the model is asked for the type alone, and its type prior, which is to say some types more than
others whatever the text is, is taken off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.records import Entity, Parse

FloatArray = NDArray[np.float64]

CONTENT_FREE = "N/A"
"""What stands for a text that says nothing."""

MATCHING_ROUNDS = 500
MATCHING_TOLERANCE = 1e-3
"""Rounds of Sinkhorn's iteration at most, and the step in nats below which it ends."""


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


def type_posterior(logprobs_st: ArrayLike, prior_t: ArrayLike) -> FloatArray:
    """Return P(type | span, text): softmax over types of log-probability minus the model's prior.

    The prior is how much a model says each type whatever the span is. Either the log-probabilities
    for a text and span without content: contextual calibration (Zhao 2102.09690) with a diagonal W
    and b = 0, over whole names instead of first tokens. Or what :func:`matched_prior` returns.

    Args:
        logprobs_st: (S, T) log-probabilities of T type names for S spans; a constant a row plays
            no part.
        prior_t: (T,) the prior, in nats.

    Raises:
        ValueError: shapes differ, there is no type, or a value is not finite.
    """
    logprobs = np.asarray(logprobs_st, dtype=np.float64)
    prior = np.asarray(prior_t, dtype=np.float64)
    if logprobs.ndim != 2 or prior.shape != logprobs.shape[1:] or not len(prior):
        raise ValueError(
            f"log-probabilities {logprobs.shape} and prior {prior.shape} do not pair up"
        )
    if not (np.isfinite(logprobs).all() and np.isfinite(prior).all()):
        raise ValueError("a log-probability is not finite")
    scores = logprobs - prior
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def mean_scores(asked: Sequence[Sequence[SpanScore]]) -> tuple[SpanScore, ...]:
    """Return the mean log-probabilities of spans that were asked for several times.

    One way to ask is one draw of what the order of a list and the choice of a name add to every
    score. The softmax of the mean is the geometric mean of the posteriors.

    Args:
        asked: for each way to ask, the same S spans with their T log-probabilities.

    Raises:
        ValueError: the ways have different spans.
    """
    return tuple(
        SpanScore(same[0].text, tuple(np.mean([s.logprobs for s in same], axis=0).tolist()))
        for same in zip(*asked, strict=True)
    )


def matched_prior(logprobs_st: ArrayLike, strength: float) -> FloatArray:
    """Return the prior that makes types equally frequent over many spans, or a share of it.

    Prior matching (Liusie 2309.04992): the h for which the mean of softmax(logprobs - h) over
    spans is the same for every type, found by Sinkhorn's iteration. Types are not equally frequent
    in truth, and a type may be absent, so a share of h is taken off. With few spans h is hardly
    known: the share is ``strength`` times S / (S + T).

    Args:
        logprobs_st: (S, T) log-probabilities of T type names for S spans of one domain.
        strength: share for many spans, in [0, 1].

    Returns:
        (T,) in nats, of mean 0; zeros if there is no span.

    Raises:
        ValueError: there is no type, a value is not finite, or the strength is not in [0, 1].
    """
    logprobs = np.asarray(logprobs_st, dtype=np.float64)
    if logprobs.ndim != 2 or not logprobs.shape[1]:
        raise ValueError(f"log-probabilities {logprobs.shape} are not of spans and types")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} is not in [0, 1]")
    spans, types = logprobs.shape
    prior = np.zeros(types)
    if not spans:
        return prior
    for _ in range(MATCHING_ROUNDS):
        means = type_posterior(logprobs, prior).mean(axis=0)
        step = np.log(np.maximum(means, np.finfo(float).tiny) * types)
        prior += step
        if np.abs(step).max() < MATCHING_TOLERANCE:
            break
    return np.asarray((prior - prior.mean()) * strength * spans / (spans + types))


def favour_untaught(
    prior_t: ArrayLike, types: Sequence[str], taught: Collection[str], nats: float
) -> FloatArray:
    """Return a prior that favours types which the model was not taught.

    A model that was taught ``person`` and not ``politician`` says ``person`` of a politician too:
    a taught type takes the more specific one that was not taught. So ``nats`` are taken from the
    prior of each of the others, which multiplies its odds by exp(nats).

    Args:
        prior_t: (T,) a prior as :func:`type_posterior` takes it, in nats.
        types: T type identifiers.
        taught: those that the model has been taught; others in it play no part.
        nats: by how much the others are favoured; 0 changes nothing.

    Returns:
        (T,) in nats. If all types were taught, or none, all posteriors stay as they were.

    Raises:
        ValueError: the lengths differ.
    """
    prior = np.asarray(prior_t, dtype=np.float64)
    if prior.shape != (len(types),):
        raise ValueError(f"prior {prior.shape} and {len(types)} types do not pair up")
    untaught = np.array([kind not in taught for kind in types], dtype=bool)
    return np.asarray(prior - nats * untaught)


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
    prior: Sequence[float],
    types: Sequence[str],
    parses: Iterable[Parse],
) -> dict[tuple[str, str], float]:
    """Return the posterior of every mention that completions state, as a labeller takes them.

    A mention of an unknown type, or that the text does not hold, gets 0.

    Args:
        scores: scored spans of one input.
        prior: (T,) the model's prior.
        types: T type identifiers, in the order of the scores.
        parses: completions of the input.

    Raises:
        ValueError: as :func:`type_posterior` does.
    """
    known: dict[str, Mapping[str, float]] = {}
    if scores:
        table = type_posterior([score.logprobs for score in scores], prior)
        for score, row in zip(scores, table.tolist(), strict=True):
            known[mention_key(score.text)] = dict(zip(types, row, strict=True))
    found: dict[tuple[str, str], float] = {}
    for parse in parses:
        for entity in parse.entities:
            key = mention_key(entity.text)
            found[key, entity.type] = known.get(key, {}).get(entity.type, 0.0)
    return found


def chosen_types(
    scores: Sequence[SpanScore], prior: Sequence[float], types: Sequence[str]
) -> dict[str, str]:
    """Return the type of highest posterior of each scored span, by normalised text.

    Args:
        scores: scored spans of one input.
        prior: (T,) the model's prior.
        types: T type identifiers, in the order of the scores; the first wins a tie.

    Raises:
        ValueError: as :func:`type_posterior` does.
    """
    if not scores:
        return {}
    best = type_posterior([score.logprobs for score in scores], prior).argmax(axis=1)
    return {
        mention_key(score.text): types[place]
        for score, place in zip(scores, best.tolist(), strict=True)
    }


def with_types(parses: Sequence[Parse], types: Mapping[str, str]) -> list[Parse]:
    """Return completions whose spans bear the types that are given, so that votes are for spans.

    A span that a completion names under several types is named once, or as often as under the type
    that it has most often. Spans without a given type stay as they are.

    Args:
        parses: completions of one input.
        types: type by normalised text, as :func:`chosen_types` gives it.
    """
    return [_with_types(parse, types) for parse in parses]


def _with_types(parse: Parse, types: Mapping[str, str]) -> Parse:
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
