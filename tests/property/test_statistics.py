from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.statistics import bootstrap_interval, count_array, holm, micro_f1
from ccrl_cli.records import Score

p_values = st.lists(st.floats(0, 1), max_size=12)
scores = st.builds(Score, *[st.integers(0, 5)] * 3)


@given(p_values)
def test_holm_lies_between_the_p_value_and_bonferroni(values):
    for value, adjusted in zip(values, holm(values), strict=True):
        assert value <= adjusted <= min(1.0, value * len(values)) + 1e-15


@given(p_values)
def test_holm_keeps_the_order(values):
    adjusted = holm(values)
    order = sorted(range(len(values)), key=lambda index: values[index])
    assert [adjusted[index] for index in order] == sorted(adjusted)


@given(st.lists(scores, min_size=1, max_size=15), st.integers(0, 2**32))
def test_an_interval_is_inside_the_range_of_the_statistic(items, seed):
    counts = count_array(items)
    interval = bootstrap_interval(counts, np.random.default_rng(seed), num_resamples=50)
    assert 0 <= interval.low <= interval.high <= 1
    assert interval.value == pytest.approx(sum(items, Score()).f1)


@given(scores)
def test_micro_f1_equals_the_score(score):
    assert micro_f1(count_array([score]))[0] == pytest.approx(score.f1)
