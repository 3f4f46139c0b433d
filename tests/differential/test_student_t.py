"""Student's t against scipy, over degrees of freedom that Satterthwaite's formula can give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ccrl_cli.core.statistics import paired_trainings
from ccrl_cli.core.student_t import student_t_cdf, student_t_quantile
from lazily import lazy, needs

stats = lazy("scipy.stats")

pytestmark = needs("scipy")

RNG = np.random.default_rng(0)
DEGREES = [0.5, 1, 2, 4, 5.3, 30, 1e4, *(10 ** RNG.uniform(-0.3, 5, 60))]


@pytest.mark.parametrize("scale", [1e-6, 0.01, 1, 5, 40])
def test_cdf(scale):
    for degrees in DEGREES:
        value = scale * RNG.normal()
        expected = stats.t.cdf(value, degrees)
        assert student_t_cdf(value, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_quantile():
    for degrees in DEGREES:
        for share in (1e-4, 0.025, 0.2, 0.5, 0.9, 0.975, 0.9999):
            expected = stats.t.ppf(share, degrees)
            assert student_t_quantile(share, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_ends():
    assert (student_t_cdf(math.inf, 3), student_t_cdf(-math.inf, 3)) == (1, 0)
    for bad in (0, -1, math.nan):
        with pytest.raises(ValueError, match="degrees of freedom"):
            student_t_cdf(1.0, bad)
    for bad in (0, 1, math.nan):
        with pytest.raises(ValueError, match="share"):
            student_t_quantile(bad, 3)


def test_pairs_without_sentence_error_are_the_paired_t_test():
    for number in (5, 6, 12):
        a, b = RNG.normal(size=(2, number))
        found, expected = paired_trainings(list(a - b), 0.0, 500), stats.ttest_rel(a, b)
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.low == pytest.approx(expected.confidence_interval().low, rel=1e-7)
        assert found.high == pytest.approx(expected.confidence_interval().high, rel=1e-7)


def test_a_large_sentence_error_gives_the_normal_test():
    found = paired_trainings([0.021, 0.02, 0.0201, 0.0199, 0.02], 0.01, 10**7)
    expected = 2 * stats.norm.sf(found.mean / 0.01)
    assert found.p_value == pytest.approx(expected, rel=0.01)
