from __future__ import annotations

import math

import numpy as np
import pytest

from ccrl_cli.core.reliability import (
    ReliabilityBin,
    auroc,
    brier,
    ece,
    reliability_bins,
    risk_coverage,
)


def test_bins_have_equal_mass():
    confidences = [0.9, 0.1, 0.3, 0.7]
    bins = reliability_bins(confidences, [1, 0, 1, 0], num_bins=2)
    assert bins == (
        ReliabilityBin(2, pytest.approx(0.2), 0.5),
        ReliabilityBin(2, pytest.approx(0.8), 0.5),
    )


def test_equal_confidences_share_a_bin():
    # Midranks (as parts of 6): 0.2 five times -> 2.5/6, 0.8 once -> 5.5/6: bins 1 and 2 of 3.
    bins = reliability_bins([0.2] * 5 + [0.8], [0, 0, 0, 0, 1, 1], num_bins=3)
    assert [part.count for part in bins] == [5, 1]
    assert bins[0].mean_target == pytest.approx(0.2)


def test_ece_weighs_gaps_by_mass():
    # Bin of 5: confidence 0.2, target 0.2, gap 0; bin of 1: 0.8 against 0: gap 0.8; 0.8/6.
    value = ece([0.2] * 5 + [0.8], [0, 0, 0, 0, 1, 0], num_bins=3)
    assert value == pytest.approx(0.8 / 6)


def test_ece_of_one_bin_is_the_difference_of_means():
    assert ece([0.9, 0.5], [0.2, 0.4], num_bins=1) == pytest.approx(0.7 - 0.3)


def test_ece_takes_more_bins_than_inputs():
    assert ece([0.9, 0.5], [1, 0], num_bins=15) == pytest.approx((0.1 + 0.5) / 2)


def test_brier():
    assert brier([0.9, 0.5], [1, 0]) == pytest.approx((0.01 + 0.25) / 2)
    assert brier([0.5], [0.75]) == pytest.approx(0.0625)


def test_auroc_counts_ties_half():
    # Right: 0.9, 0.5; wrong: 0.5, 0.1. Pairs: win, win, tie, win = 3.5 of 4.
    assert auroc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0]) == 0.875
    assert auroc([0.5, 0.5], [1, 0]) == 0.5
    assert auroc([0.1, 0.9], [1, 0]) == 0.0


def test_auroc_of_one_class_is_undefined():
    assert auroc([0.1, 0.9], [1, 1]) is None
    assert auroc([0.1, 0.9], [0, 0]) is None


def test_auroc_refuses_fractions():
    with pytest.raises(ValueError, match="not fractions"):
        auroc([0.1, 0.9], [0.5, 1])


def test_risk_coverage():
    # By confidence: right, wrong, right, wrong -> cumulative losses 0, 1, 1, 2.
    curve = risk_coverage([0.2, 0.9, 0.7, 0.4], [0, 1, 0, 1])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.area == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_risk_among_ties_is_the_mean_over_their_orders():
    # Both orders of the tie: risks (0, 1/2) and (1, 1/2): mean (1/2, 1/2).
    for targets in ([0, 1], [1, 0]):
        np.testing.assert_allclose(risk_coverage([0.5, 0.5], targets).risk, [0.5, 0.5])


@pytest.mark.parametrize("measure", [reliability_bins, ece, brier, auroc, risk_coverage])
@pytest.mark.parametrize(
    ("confidences", "targets"),
    [([], []), ([0.5], [1, 0]), ([1.5], [1]), ([0.5], [2]), ([math.nan], [1]), ([0.5], [math.nan])],
)
def test_bad_pairs_are_refused(measure, confidences, targets):
    with pytest.raises(ValueError, match=r"pair up|not in \[0, 1\]"):
        measure(confidences, targets)


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins"):
        ece([0.5], [1], num_bins=0)
