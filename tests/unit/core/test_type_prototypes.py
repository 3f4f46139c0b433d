"""Prototypes: where spans of a type lie says more than a constant a type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.type_evidence import SpanScore, matched_prior, type_posterior
from ccrl_cli.core.type_prototypes import SHARE, SHRINKAGE, ScoreMap, fit_prototypes

TABLES = st.integers(2, 4).flatmap(
    lambda types: st.lists(
        st.lists(st.floats(-8, 0), min_size=types, max_size=types), min_size=1, max_size=12
    )
)


def test_by_hand():
    # Two types; centred scores +-2 twice and +-1 twice. Prior 0: x = (a, -a), p = sigmoid(2a).
    logprobs = np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    a = np.array([2.0, 1.0, -1.0, -2.0])
    p = 1 / (1 + np.exp(-2 * a))
    mean = float((p * a).sum() / p.sum())  # of the first type; the second is its mirror image
    spread = float((a**2).mean() - mean**2)  # the covariance is spread times [[1, -1], [-1, 1]]
    inverse = 1 / (2 * (1 - SHRINKAGE) * spread + SHRINKAGE * spread)  # along (1, -1)
    share = SHARE * 4 / 24
    # log N differs by 2 a times the distance 2 mean of the prototypes along (1, -1), over 1/inverse
    gap = (1 - share) * 2 * a + share * 2 * (2 * a * mean * inverse)
    found = fit_prototypes(logprobs, [0.0, 0.0])(logprobs)
    assert (found[:, 0] - found[:, 1]).tolist() == pytest.approx(gap.tolist())


def test_a_type_that_another_swallows_is_told_by_its_place():
    # The model says "person" of everybody, of politicians with the second score close behind.
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, -6.0, -3.0], [0.0, -1.5, -6.0], [-6.0, -6.0, 0.0]])
    kinds = rng.integers(0, 3, 300)
    logprobs = centres[kinds] + rng.normal(0, 0.7, (300, 3))
    prior = matched_prior(logprobs, 0.75)
    before = type_posterior(logprobs, prior).argmax(axis=1)
    after = fit_prototypes(logprobs, prior)(logprobs).argmax(axis=1)
    assert (after == kinds).mean() > (before == kinds).mean()
    assert (after == kinds).mean() > 0.95


@given(TABLES, st.floats(-20, 20))
def test_a_constant_of_a_span_plays_no_part(logprobs, constant):
    prior = np.zeros(len(logprobs[0]))
    found = fit_prototypes(logprobs, prior)
    moved = [[value + constant for value in logprobs[0]], *logprobs[1:]]
    again = fit_prototypes(moved, prior)
    assert np.isfinite(found(logprobs)).all()
    assert again(moved) == pytest.approx(found(logprobs), abs=1e-5)


def test_without_spans_and_without_spread_the_prior_is_all():
    for logprobs in (np.zeros((0, 2)), np.zeros((3, 2))):
        found = fit_prototypes(logprobs, [1.0, -1.0])
        assert found([[0.5, 0.5]]).tolist() == [[-1.0, 1.0]]


def test_a_prior_alone_gives_its_posteriors():
    logprobs, prior = [[-1.0, -2.0, -4.0]], [0.5, -0.25, -0.25]
    mapped = ScoreMap.of_prior(prior)
    assert type_posterior(mapped(logprobs), [0.0] * 3) == pytest.approx(
        type_posterior(logprobs, prior)
    )
    assert [s.text for s in mapped.spans([SpanScore("Ada", (-1.0, -2.0, -4.0))])] == ["Ada"]
    assert mapped.spans([]) == ()
