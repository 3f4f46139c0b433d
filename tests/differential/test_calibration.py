"""Calibration and its measures against scikit-learn and scipy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from ccrl_cli.core.calibration import (
    fit_combination,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from ccrl_cli.core.reliability import auroc, brier, ece, risk_coverage
from lazily import lazy, needs

optimize = lazy("scipy.optimize")
special = lazy("scipy.special")
sk_calibration = lazy("sklearn.calibration")
sk_isotonic = lazy("sklearn.isotonic")
sk_linear = lazy("sklearn.linear_model")
sk_metrics = lazy("sklearn.metrics")

pytestmark = needs("scipy", "sklearn")


def draw(seed, size=400, levels=None):
    """Return confidences (of K + 1 levels if asked), right or wrong, and fractional targets."""
    rng = np.random.default_rng(seed)
    scores = rng.random(size)
    if levels:
        scores = np.round(scores * levels) / levels
    right = (rng.random(size) < 0.2 + 0.5 * scores**2).astype(float)
    return scores, right, np.clip(right * 0.7 + 0.3 * rng.random(size), 0, 1)


cases = pytest.mark.parametrize(("seed", "levels"), [(0, None), (1, 8), (2, 16), (3, 1)])


@cases
def test_isotonic_equals_scikit_learn(seed, levels):
    scores, right, fractions = draw(seed, levels=levels)
    grid = np.linspace(0, 1, 101)
    for targets in (right, fractions):
        peer = sk_isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, targets)
        np.testing.assert_allclose(
            fit_isotonic(scores, targets)(grid), peer.predict(grid), atol=1e-12
        )


@cases
def test_platt_equals_scikit_learn(seed, levels):
    scores, right, _ = draw(seed, levels=levels)
    peer_slope, peer_intercept = sk_calibration._sigmoid_calibration(scores, right)
    fit = fit_platt(scores, right)
    # scikit-learn has the sign of 1 / (1 + exp(A f + B)), and stops sooner.
    assert fit.slope == pytest.approx(-peer_slope, rel=1e-3, abs=1e-4)
    assert fit.intercept == pytest.approx(-peer_intercept, rel=1e-3, abs=1e-4)


@cases
def test_platt_of_fractions_equals_scipy(seed, levels):
    scores, _, fractions = draw(seed, levels=levels)
    positives = fractions.sum()
    high, low = (positives + 1) / (positives + 2), 1 / (len(scores) - positives + 2)
    smoothed = fractions * high + (1 - fractions) * low

    def loss(parameters):
        chance = special.expit(parameters[0] * scores + parameters[1])
        return (
            special.xlogy(smoothed, 1 / chance).sum()
            + special.xlogy(1 - smoothed, 1 / (1 - chance)).sum()
        )

    peer = optimize.minimize(loss, [0.0, 0.0], method="BFGS", options={"gtol": 1e-6})
    fit = fit_platt(scores, fractions)
    np.testing.assert_allclose([fit.slope, fit.intercept], peer.x, rtol=1e-4, atol=1e-5)


@cases
def test_temperature_equals_scipy(seed, levels):
    scores, right, fractions = draw(seed, levels=levels)
    for targets in (right, fractions):

        def loss(log_temperature, targets=targets):
            scaled = special.logit(np.clip(scores, 1e-3, 1 - 1e-3)) / np.exp(log_temperature)
            return (np.logaddexp(0, scaled) - targets * scaled).sum()

        peer = optimize.minimize_scalar(
            loss, bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-10}
        )
        fit = fit_temperature(scores, targets)
        assert loss(np.log(fit.temperature)) <= peer.fun + 1e-9
        assert np.log(fit.temperature) == pytest.approx(peer.x, abs=1e-4)


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_combination_equals_scikit_learn(ridge):
    first, right, fractions = draw(4)
    second = np.clip(fractions + np.random.default_rng(5).normal(0, 0.3, len(first)), 0, 1)
    peer = sk_linear.LogisticRegression(C=1 / ridge, tol=1e-10, max_iter=10_000)
    peer.fit(np.stack([first, second], axis=1), right)
    fit = fit_combination({"entity_vote": first, "logprob": second}, right, ridge=ridge)
    np.testing.assert_allclose(list(fit.coefficients.values()), peer.coef_[0], rtol=1e-4)
    assert fit.intercept == pytest.approx(peer.intercept_[0], rel=1e-4)


@cases
def test_brier_and_auroc_equal_scikit_learn(seed, levels):
    scores, right, _ = draw(seed, levels=levels)
    assert brier(scores, right) == pytest.approx(sk_metrics.brier_score_loss(right, scores))
    assert auroc(scores, right) == pytest.approx(sk_metrics.roc_auc_score(right, scores))


@pytest.mark.parametrize("num_bins", [1, 5, 10, 20])
def test_ece_equals_scikit_learn_bins(num_bins):
    # 400 distinct confidences: every bin has the same mass, so ECE is the plain mean of the gaps.
    scores, right, _ = draw(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        true, predicted = sk_calibration.calibration_curve(
            right, scores, n_bins=num_bins, strategy="quantile"
        )
    assert ece(scores, right, num_bins=num_bins) == pytest.approx(np.abs(true - predicted).mean())


def test_risk_coverage_equals_the_mean_over_shuffled_ties():
    scores, right, _ = draw(7, size=40, levels=4)
    rng = np.random.default_rng(8)
    curves = []
    for _ in range(4000):
        order = rng.permutation(len(scores))
        order = order[np.argsort(-scores[order], kind="stable")]
        curves.append(np.cumsum(1 - right[order]) / np.arange(1, len(scores) + 1))
    np.testing.assert_allclose(
        risk_coverage(scores, right).risk, np.mean(curves, axis=0), atol=0.03
    )
