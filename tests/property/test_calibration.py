from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.calibration import (
    FITS,
    Platt,
    Temperature,
    calibrate_in_order,
    calibrator_from_dict,
)
from ccrl_cli.core.reliability import auroc, ece, reliability_bins, risk_coverage

confidences = st.one_of(st.floats(0, 1), st.sampled_from([k / 8 for k in range(9)]))
targets = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
pairs = st.lists(st.tuples(confidences, targets), min_size=1, max_size=30)
grid = np.linspace(0, 1, 33)


@given(pairs, st.sampled_from(sorted(FITS)))
def test_calibrated_confidences_are_bounded_and_survive_a_dict(items, kind):
    scores, goals = zip(*items, strict=True)
    calibrator = FITS[kind](scores, goals)
    calibrated = calibrator(grid)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert calibrator_from_dict(calibrator.to_dict()) == calibrator


@given(pairs)
def test_temperature_and_isotonic_never_reverse_the_order(items):
    scores, goals = zip(*items, strict=True)
    for kind in ("temperature", "isotonic"):
        assert (np.diff(FITS[kind](scores, goals)(grid)) >= -1e-12).all()


@given(pairs)
def test_isotonic_keeps_the_mean_of_the_targets(items):
    scores, goals = zip(*items, strict=True)
    calibrated = FITS["isotonic"](scores, goals)(scores)
    assert calibrated.mean() == pytest.approx(np.mean(goals), abs=1e-9)


@given(pairs)
def test_no_other_temperature_has_less_loss(items):
    scores, goals = map(np.array, zip(*items, strict=True))

    def loss(temperature):
        chance = np.clip(Temperature(temperature)(scores), 1e-300, 1)
        other = np.clip(Temperature(temperature)(1 - scores), 1e-300, 1)
        return -(goals * np.log(chance) + (1 - goals) * np.log(other)).sum()

    best = FITS["temperature"](scores, goals).temperature
    for temperature in np.clip([best * 0.9, best * 1.1, 1.0], 0.01, 100):
        assert loss(best) <= loss(temperature) * (1 + 1e-9) + 1e-9


@given(pairs, st.integers(1, 12), st.randoms(use_true_random=False))
def test_measures_do_not_depend_on_the_order(items, num_bins, random):
    shuffled = random.sample(items, len(items))
    (scores, goals), (others, other_goals) = zip(*items, strict=True), zip(*shuffled, strict=True)
    assert ece(scores, goals, num_bins=num_bins) == pytest.approx(
        ece(others, other_goals, num_bins=num_bins), abs=1e-12
    )
    np.testing.assert_allclose(
        risk_coverage(scores, goals).risk, risk_coverage(others, other_goals).risk, atol=1e-12
    )


@given(pairs, st.integers(1, 12))
def test_bins_hold_every_input_once_in_order(items, num_bins):
    scores, goals = zip(*items, strict=True)
    bins = reliability_bins(scores, goals, num_bins=num_bins)
    assert sum(part.count for part in bins) == len(items)
    assert len(bins) <= num_bins
    means = [part.mean_confidence for part in bins]
    assert all(low <= high + 1e-12 for low, high in pairwise(means))


@given(pairs)
def test_full_coverage_has_the_mean_risk(items):
    scores, goals = zip(*items, strict=True)
    curve = risk_coverage(scores, goals)
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(1 - np.mean(goals), abs=1e-9)


@given(st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(items):
    right = [score for score, good in items if good]
    wrong = [score for score, good in items if not good]
    value = auroc(*map(np.array, zip(*items, strict=True)))
    if not right or not wrong:
        assert value is None
    else:
        wins = [(r > w) + (r == w) / 2 for r in right for w in wrong]
        assert value == pytest.approx(sum(wins) / len(wins))


@given(pairs, st.lists(confidences, min_size=1, max_size=30), st.sampled_from(sorted(FITS)))
def test_calibrating_in_order_keeps_order_and_ties(items, values, kind):
    scores, goals = zip(*items, strict=True)
    calibrator = FITS[kind](scores, goals)
    if kind == "platt" and calibrator.slope < 0:
        return
    calibrated = calibrate_in_order(calibrator, values)
    np.testing.assert_allclose(calibrated, calibrator(values), atol=1e-8)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    for (low, one), (high, other) in pairwise(sorted(zip(values, calibrated, strict=True))):
        assert one == other if low == high else one < other


def test_a_calibrator_that_reverses_the_order_is_refused():
    with pytest.raises(ValueError, match="reverses the order"):
        calibrate_in_order(Platt(-1.0, 0.0), [0.1, 0.9])
