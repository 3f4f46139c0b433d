"""Prototypes: types as regions of the space of type scores, found without a label.

A prior moves every type by a constant. But a model errs by pairs: it says ``person`` of a
politician and ``location`` of a country, and not the other way round. Spans of one type lie
together in the space of all T scores, wherever the model puts its favourite, so the scores are read
again by where spans lie: prototypical calibration (Han 2205.10183), here by one step of linear
discriminant analysis on the posteriors that the prior gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.type_evidence import SpanScore, type_posterior

FloatArray = NDArray[np.float64]

SHARE = 0.5
"""Share of the discriminant in what comes out; the rest is the scores less their prior."""

SHRINKAGE = 0.3
"""Share of a multiple of the identity in the covariance within types."""

MIN_VARIANCE = 1e-6
"""Variance within types (nats squared) below which spans lie on their prototypes."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreMap:
    """An affine map of type scores, after which no prior is to be taken off.

    Attributes:
        weights: (T, T) applied to the scores of a span less their mean.
        offsets: (T,) added, in nats.
    """

    weights: FloatArray
    offsets: FloatArray

    @classmethod
    def of_prior(cls, prior_t: ArrayLike) -> ScoreMap:
        """Return the map that takes a (T,) prior off, in nats."""
        prior = np.asarray(prior_t, dtype=np.float64)
        return cls(np.eye(len(prior)), -prior)

    def __call__(self, logprobs_st: ArrayLike) -> FloatArray:
        """Return the (S, T) mapped scores of (S, T) log-probabilities."""
        return np.asarray(_centred(logprobs_st) @ self.weights.T + self.offsets)

    def spans(self, scores: Sequence[SpanScore]) -> tuple[SpanScore, ...]:
        """Return the scored spans of one input, mapped."""
        if not scores:
            return ()
        mapped = self([score.logprobs for score in scores]).tolist()
        return tuple(SpanScore(s.text, tuple(row)) for s, row in zip(scores, mapped, strict=True))


def fit_prototypes(logprobs_st: ArrayLike, prior_t: ArrayLike) -> ScoreMap:
    """Return the map that reads the scores of many spans by where the spans of a type lie.

    Each span counts for type t by its posterior under the prior. From these, means mu_t and one
    covariance C within types give Gaussians, and log N(x; mu_t, C) is linear in x up to a constant
    of the span. :data:`SHARE` of it and the rest of log P(t | x) are added. With few spans the
    covariance is hardly known: the share is that times S / (S + 10 T).

    Args:
        logprobs_st: (S, T) log-probabilities of T type names for S spans of one domain.
        prior_t: (T,) the prior, in nats, as :func:`type_posterior` takes it.

    Raises:
        ValueError: as :func:`type_posterior` does.
    """
    scores = np.asarray(logprobs_st, dtype=np.float64)
    plain = ScoreMap.of_prior(prior_t)
    spans, types = scores.shape
    if not spans:
        return plain
    posterior = type_posterior(scores, prior_t)
    x = _centred(scores)
    mass = posterior.sum(axis=0)
    means = posterior.T @ x / np.maximum(mass, np.finfo(float).tiny)[:, None]
    within = (x.T @ x - (means.T * mass) @ means) / spans
    level = np.trace(within) / types
    if level < MIN_VARIANCE:  # nothing to measure distances by
        return plain
    within = (1 - SHRINKAGE) * within + SHRINKAGE * level * np.eye(types)
    directions = np.linalg.solve(within, means.T).T
    offsets = -0.5 * (directions * means).sum(axis=1)
    share = SHARE * spans / (spans + 10 * types)
    return ScoreMap(
        (1 - share) * plain.weights + share * directions,
        (1 - share) * plain.offsets + share * offsets,
    )


def _centred(logprobs_st: ArrayLike) -> FloatArray:
    scores = np.asarray(logprobs_st, dtype=np.float64)
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))
