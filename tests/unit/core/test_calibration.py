from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ccrl_cli.core.calibration import (
    FITS,
    Isotonic,
    Platt,
    Temperature,
    calibrator_from_dict,
    fit_combination,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from ccrl_cli.core.combination import combined


def test_temperature_divides_the_logit():
    # logit(0.9) = ln 9; half of it is ln 3, and sigmoid(ln 3) = 3/4.
    np.testing.assert_allclose(Temperature(2.0)([0.9, 0.5, 0.1]), [0.75, 0.5, 0.25])


def test_temperature_clips_the_ends():
    # logit(1 - 1/10) = ln 9 for both 1.0 and 0.95 when everything above 0.9 is clipped.
    np.testing.assert_allclose(Temperature(1.0, clip=0.1)([1.0, 0.95, 0.0]), [0.9, 0.9, 0.1])


def test_fit_temperature_recovers_the_temperature():
    # One confidence 0.9 (logit ln 9) with 3 of 4 right (log-odds ln 3): T = ln 9 / ln 3 = 2.
    fit = fit_temperature([0.9] * 4, [1, 1, 1, 0])
    assert fit.temperature == pytest.approx(2.0, abs=1e-9)
    # The fraction 3/4 says the same.
    assert fit_temperature([0.9], [0.75]).temperature == pytest.approx(2.0, abs=1e-9)


def test_fit_temperature_stops_at_its_limits():
    assert fit_temperature([0.9, 0.9], [1, 1]).temperature == 0.01  # always right: sharpen
    assert fit_temperature([0.9, 0.1], [0, 1]).temperature == 100.0  # the opposite holds
    assert fit_temperature([0.5], [1]).temperature == 100.0  # no information at all


def test_fit_platt_on_two_points():
    # N+ = 3, N- = 3: targets 1 -> 4/5, 0 -> 1/5. At 0: two wrong, one right: (1/5+1/5+4/5)/3 = 0.4;
    # at 1: 0.6. Two parameters meet two means exactly: intercept = ln(0.4/0.6) = -ln 1.5,
    # slope = ln 1.5 + ln 1.5.
    fit = fit_platt([0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0])
    assert fit.intercept == pytest.approx(-math.log(1.5))
    assert fit.slope == pytest.approx(2 * math.log(1.5))


def test_fit_platt_is_finite_where_confidence_separates():
    # N+ = N- = 2: smoothed to 3/4 and 1/4: intercept -ln 3, slope 2 ln 3.
    fit = fit_platt([0, 0, 1, 1], [0, 0, 1, 1])
    assert fit.intercept == pytest.approx(-math.log(3))
    assert fit.slope == pytest.approx(2 * math.log(3))


def test_fit_platt_on_one_confidence_is_the_smoothed_mean():
    # N+ = 3, N- = 1: (3*(4/5) + 1/3)/4 = (36/15 + 5/15)/4 = 41/60.
    fit = fit_platt([0.4] * 4, [1, 1, 1, 0])
    assert fit.slope == 0
    assert fit([0.4])[0] == pytest.approx(41 / 60)


def test_fit_isotonic_pools_violators():
    # 0.1 -> 0; 0.2 -> 1 and 0.3 -> 0 violate: 1/2; 0.4 -> 1.
    fit = fit_isotonic([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    np.testing.assert_allclose(fit([0.1, 0.2, 0.25, 0.3, 0.4]), [0, 0.5, 0.5, 0.5, 1])
    # Between knots linear, outside them constant.
    np.testing.assert_allclose(fit([0.15, 0.0, 1.0]), [0.25, 0, 1])


def test_fit_isotonic_pools_backwards():
    # 1, then 0, then 0.2: 1 and 0 pool to 1/2, which violates 0.2: all pool to 0.4.
    fit = fit_isotonic([0.1, 0.2, 0.3], [1.0, 0.0, 0.2])
    np.testing.assert_allclose(fit([0.1, 0.2, 0.3]), 0.4)
    assert fit.confidences == (0.1, 0.3)  # the middle of a flat run is no knot


def test_fit_isotonic_takes_the_mean_of_equal_confidences():
    # 0.5 -> mean 2/3, in any order of the ties.
    for targets in ([1, 1, 0], [0, 1, 1]):
        np.testing.assert_allclose(fit_isotonic([0.5] * 3, targets)([0.2, 0.5]), 2 / 3)


@pytest.mark.parametrize(
    "calibrator", [Temperature(1.7, 0.01), Platt(2.5, -1.0), Isotonic((0.1, 0.9), (0.0, 0.75))]
)
def test_calibrators_survive_json(calibrator):
    again = calibrator_from_dict(json.loads(json.dumps(calibrator.to_dict())))
    assert again == calibrator
    assert type(calibrator).from_dict(calibrator.to_dict()) == calibrator


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "kind None is not one of temperature, platt, isotonic"),
        ({"kind": "beta"}, "kind 'beta'"),
        ({"kind": "platt", "slope": 1.0}, "platt calibrator lacks 'intercept'"),
    ],
)
def test_bad_calibrator_descriptions_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        calibrator_from_dict(values)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize(
    ("confidences", "targets"),
    [
        ([], []),
        ([0.5], [0.5, 0.5]),
        ([1.1], [1]),
        ([0.5], [-0.1]),
        ([math.nan], [1]),
        ([[0.5]], [[1]]),
    ],
)
def test_bad_pairs_are_refused(kind, confidences, targets):
    with pytest.raises(ValueError, match=r"pair up|not in \[0, 1\]"):
        FITS[kind](confidences, targets)


@pytest.mark.parametrize("clip", [0.0, 0.5, math.nan])
def test_bad_clip_is_refused(clip):
    with pytest.raises(ValueError, match="clip"):
        fit_temperature([0.5], [1], clip=clip)


def test_fit_combination_finds_the_metric_that_tells():
    rng = np.random.default_rng(0)
    informative, noise = rng.random(2000), rng.random(2000)
    targets = (rng.random(2000) < informative).astype(float)
    values = {"self_consistency": informative, "logprob": noise}
    fit = fit_combination(values, targets)
    assert fit.metrics == ("self_consistency", "logprob")
    assert fit.coefficients["self_consistency"] > 3
    assert abs(fit.coefficients["logprob"]) < 0.5
    # A logistic fit with an intercept meets the mean of the targets.
    assert combined(values, fit).mean() == pytest.approx(targets.mean(), abs=1e-6)


def test_fit_combination_is_finite_where_metrics_coincide_or_separate():
    fit = fit_combination(
        {"self_consistency": [0.0, 0.0, 1.0, 1.0], "logprob": [0.0, 0.0, 1.0, 1.0]}, [0, 0, 1, 1]
    )
    first, second = fit.coefficients.values()
    assert first == pytest.approx(second)
    assert math.isfinite(first)
    assert first > 0


def test_fit_combination_refuses_what_it_cannot_fit():
    with pytest.raises(ValueError, match="all 0 or all 1"):
        fit_combination({"logprob": [0.1, 0.2]}, [1, 1])
    with pytest.raises(ValueError, match="no metric"):
        fit_combination({}, [1, 0])
    with pytest.raises(ValueError, match="ridge"):
        fit_combination({"logprob": [0.1, 0.2]}, [1, 0], ridge=0.0)
