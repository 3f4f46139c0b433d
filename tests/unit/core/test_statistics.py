from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from ccrl_cli.core.statistics import (
    bootstrap_interval,
    count_array,
    holm,
    mean_micro_f1,
    micro_f1,
    paired_bootstrap,
    paired_trainings,
    seed_spread,
    sign_flip,
)
from ccrl_cli.records import Score


def generator(seed=0):
    return np.random.default_rng(seed)


def first_column_mean(counts):
    """Mean of column 0 where column 1 counts the sentences."""
    return counts[..., 0] / counts[..., 1]


def test_count_array_holds_a_row_a_sentence():
    assert count_array([Score(1, 2, 3), Score()]).tolist() == [[1, 2, 3], [0, 0, 0]]
    assert count_array([]).shape == (0, 3)


def test_micro_f1():
    # 2*3 / (2*3 + 1 + 2) = 6/9; nothing against nothing is 1; nothing found is 0.
    np.testing.assert_allclose(micro_f1(np.array([[3, 1, 2], [0, 0, 0], [0, 0, 5]])), [2 / 3, 1, 0])
    assert micro_f1(np.array([3, 1, 2])) == pytest.approx(Score(3, 1, 2).f1)


def test_interval_is_of_the_summed_counts():
    # Sums (2, 1, 1): 2*2/(2*2 + 1 + 1) = 4/6; the mean of the sentences' F1, 1 and 2/4, is 3/4.
    counts = count_array([Score(1, 0, 0), Score(1, 1, 1)])
    interval = bootstrap_interval(counts, generator())
    assert interval.value == pytest.approx(4 / 6)
    # Resamples can only give 1, 4/6 or 1/2, the ends a quarter of the time each.
    assert (interval.low, interval.high) == (0.5, 1.0)
    assert (interval.level, interval.num_resamples) == (0.95, 1000)


def test_interval_of_equal_sentences_is_a_point():
    interval = bootstrap_interval(count_array([Score(1, 1, 0)] * 20), generator())
    assert interval.value == interval.low == interval.high == pytest.approx(2 / 3)


def test_interval_of_a_mean_equals_the_normal_one():
    # The bootstrap of a mean of n = 2000 has standard error s/sqrt(n); 95 % is 1.96 of them.
    values = generator(1).normal(size=2000)
    counts = np.column_stack([values, np.ones(2000)])
    interval = bootstrap_interval(
        counts, generator(2), statistic=first_column_mean, num_resamples=4000
    )
    error = values.std() / math.sqrt(2000)
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_a_lower_level_gives_a_narrower_interval():
    counts = generator(3).integers(0, 4, size=(100, 3))
    wide = bootstrap_interval(counts, generator(), level=0.99)
    narrow = bootstrap_interval(counts, generator(), level=0.5)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_the_generator_decides_the_draws():
    counts = generator(3).integers(0, 4, size=(100, 3))
    assert bootstrap_interval(counts, generator(1)) == bootstrap_interval(counts, generator(1))
    assert bootstrap_interval(counts, generator(1)) != bootstrap_interval(counts, generator(2))


def test_draws_reach_past_one_chunk():
    # 3000 sentences make chunks of 666 resamples.
    counts = np.ones((3000, 3))
    interval = bootstrap_interval(counts, generator(), num_resamples=1500)
    assert interval.num_resamples == 1500


def test_p_value_equals_the_exact_one_of_all_resamples():
    a = count_array([Score(3, 0, 1), Score(2, 1, 0), Score(0, 1, 2), Score(1, 0, 0)])
    b = count_array([Score(2, 1, 2), Score(2, 1, 0), Score(1, 1, 1), Score(0, 0, 1)])
    rows = np.array(list(product(range(4), repeat=4)))  # 256 equally likely resamples
    differences = micro_f1(a[rows].sum(axis=1)) - micro_f1(b[rows].sum(axis=1))
    observed = micro_f1(a.sum(axis=0)) - micro_f1(b.sum(axis=0))
    exact = (np.abs(differences - observed) >= abs(observed) - 1e-12).mean()
    comparison = paired_bootstrap(a, b, generator(), num_resamples=20_000)
    assert comparison.difference.value == pytest.approx(observed)
    assert comparison.p_value == pytest.approx(exact, abs=0.015)
    assert 0.1 < exact < 0.9  # the case can tell


def test_equal_systems_do_not_differ():
    counts = generator(3).integers(0, 4, size=(50, 3))
    comparison = paired_bootstrap(counts, counts, generator())
    assert comparison.p_value == 1.0
    assert (comparison.difference.low, comparison.difference.high) == (0.0, 0.0)


def test_a_constant_difference_is_as_sure_as_the_resamples_allow():
    a, b = count_array([Score(1, 0, 0)] * 30), count_array([Score(0, 1, 1)] * 30)
    comparison = paired_bootstrap(a, b, generator(), num_resamples=99)
    assert comparison.difference.value == 1.0
    assert comparison.p_value == 1 / 100


def test_pairing_sees_a_small_constant_gain():
    # Sentences vary much, but a always has one mention more right than b.
    base = generator(4).integers(0, 30, size=200)
    a = np.column_stack([base + 1, np.zeros(200), np.full(200, 3)])
    b = np.column_stack([base, np.zeros(200), np.full(200, 4)])
    comparison = paired_bootstrap(a, b, generator(5))
    assert comparison.p_value < 0.01
    assert comparison.difference.low > 0
    # Each interval alone is wider than the difference.
    alone = bootstrap_interval(a, generator(6))
    assert alone.high - alone.low > comparison.difference.high - comparison.difference.low


def test_swapping_the_systems_turns_the_sign():
    a, b = generator(7).integers(0, 4, size=(2, 60, 3))
    one, other = paired_bootstrap(a, b, generator(8)), paired_bootstrap(b, a, generator(8))
    assert one.difference.value == -other.difference.value
    assert one.p_value == other.p_value


def test_p_values_of_equally_good_systems_are_nearly_uniform():
    rng, small = generator(9), 0
    for _ in range(300):
        right = rng.binomial(3, 0.6, size=(2, 80))
        a, b = (np.column_stack([r, 3 - r, 3 - r]) for r in right)
        small += paired_bootstrap(a, b, rng, num_resamples=200).p_value <= 0.1
    # 300 * 0.1 = 30 expected, standard deviation sqrt(300 * 0.1 * 0.9) = 5.2: four of them.
    assert 10 <= small <= 51


def test_holm():
    # Sorted 0.01, 0.03, 0.04: times 3, 2, 1 = 0.03, 0.06, 0.04; the last may not fall: 0.06.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_seed_spread():
    # Mean 0.4; squares 0.01 + 0 + 0.01 over n - 1 = 2: sqrt(0.01).
    spread = seed_spread([0.3, 0.4, 0.5])
    assert spread.mean == pytest.approx(0.4)
    assert spread.deviation == pytest.approx(0.1)
    assert spread.num_seeds == 3
    assert seed_spread([0.3]).deviation is None


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf]])
def test_bad_seed_values_are_refused(values):
    with pytest.raises(ValueError, match="over seeds"):
        seed_spread(values)


@pytest.mark.parametrize("p_values", [[1.1], [-0.1], [math.nan, 0.5]])
def test_bad_p_values_are_refused(p_values):
    with pytest.raises(ValueError, match="p-values"):
        holm(p_values)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (np.empty((0, 3)), {}, "shape"),
        ([1, 2, 3], {}, "shape"),
        ([[1, math.nan, 0]], {}, "not finite"),
        ([[1, 0, 0]], {"num_resamples": 0}, "num_resamples"),
        ([[1, 0, 0]], {"level": 1.0}, "level"),
    ],
)
def test_bad_counts_and_options_are_refused(counts, options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(counts, generator(), **options)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(counts, counts, generator(), **options)


def test_unpaired_counts_are_refused():
    with pytest.raises(ValueError, match="same sentences"):
        paired_bootstrap([[1, 0, 0]], [[1, 0, 0]] * 2, generator())


def test_mean_f1_over_trainings():
    # Two trainings of one sentence each: 2*1/(2 + 1 + 0) = 2/3 and 2*1/(2 + 0 + 2) = 1/2.
    assert mean_micro_f1(np.array([1, 1, 0, 1, 0, 2.0])) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert mean_micro_f1(np.ones((4, 7, 6))).shape == (4, 7)


def test_the_standard_error_is_that_of_the_resamples():
    # The mean of n = 2000 has standard error s / sqrt(n).
    values = generator(1).normal(size=2000)
    a = np.column_stack([values, np.ones(2000)])
    b = np.column_stack([np.zeros(2000), np.ones(2000)])
    found = paired_bootstrap(a, b, generator(2), statistic=first_column_mean, num_resamples=4000)
    assert found.standard_error == pytest.approx(values.std() / math.sqrt(2000), rel=0.05)


def test_paired_trainings_by_hand():
    # Mean 0.03, squares 4 + 1 + 0 + 1 + 4 = 10e-4, s^2 = 2.5e-4, s^2/n = 5e-5, e^2 = 4e-4:
    # V = 4.5e-4; degrees = V^2 / ((5e-5)^2/4 + (4e-4)^2/99) = 2.025e-7 / 2.2412e-9 = 90.35.
    found = paired_trainings([0.01, 0.02, 0.03, 0.04, 0.05], 0.02, 100)
    assert found.mean == pytest.approx(0.03)
    assert found.deviation == pytest.approx(math.sqrt(2.5e-4))
    assert found.degrees == pytest.approx(90.35, abs=0.01)
    # t = 0.03 / 0.0212132 = 1.41421; the 97.5 % quantile of 90 degrees is 1.98667 in tables.
    assert found.high - found.mean == pytest.approx(1.9866 * math.sqrt(4.5e-4), rel=1e-4)
    assert found.low == pytest.approx(0.06 - found.high)
    assert found.p_value == pytest.approx(0.1608, abs=2e-4)


def test_without_sentence_error_it_is_the_plain_paired_t_test():
    # Tables: t = 0.03 / sqrt(2.5e-4 / 5) = 4.2426 with four degrees has p = 0.0132.
    found = paired_trainings([0.01, 0.02, 0.03, 0.04, 0.05], 0.0, 100)
    assert found.degrees == pytest.approx(4)
    assert found.p_value == pytest.approx(0.0132, abs=1e-4)


def test_fewer_than_five_pairs_tell_nothing():
    found = paired_trainings([0.5, 0.5, 0.5, 0.5], 0.0001, 1000)
    assert (found.p_value, found.low, found.high, found.degrees) == (None, None, None, None)
    assert found.mean == 0.5
    assert paired_trainings([0.5], 0.1, 100).deviation is None


def test_pairs_that_never_differ_are_equal():
    found = paired_trainings([0.0] * 5, 0.0, 100)
    assert (found.p_value, found.low, found.high) == (1.0, 0.0, 0.0)
    assert paired_trainings([0.1] * 5, 0.0, 100).p_value == 0.0


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], (0.1, 10), "over seeds"),
        ([0.1, math.nan], (0.1, 10), "over seeds"),
        ([0.1] * 5, (-0.1, 10), "sentence_error"),
        ([0.1] * 5, (math.inf, 10), "sentence_error"),
        ([0.1] * 5, (0.1, 0), "num_sentences"),
    ],
)
def test_bad_pairs_are_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        paired_trainings(values, *options)
    with pytest.raises(ValueError, match="level"):
        paired_trainings([0.1] * 5, 0.1, 10, level=1.0)


def test_sign_flip_equals_all_choices_of_signs():
    values = [0.03, -0.01, 0.02, 0.005, 0.0, 0.04, -0.02]
    sums = [sum(s * v for s, v in zip(signs, values, strict=True))
            for signs in product((1, -1), repeat=7)]  # fmt: skip
    exact = sum(abs(total) >= abs(sum(values)) - 1e-12 for total in sums) / len(sums)
    found = sign_flip(values)
    assert found.p_value == pytest.approx(exact)
    assert found.mean == pytest.approx(sum(values) / 7)
    assert found.standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(7))
    assert 0.1 < exact < 0.9  # the case can tell


def test_six_domains_with_one_sign_are_the_least_that_can_tell():
    # Of 64 choices two are as far: all plus and all minus.
    assert sign_flip([0.01] * 6).p_value == pytest.approx(2 / 64)
    assert sign_flip([0.01] * 5).p_value is None
    assert sign_flip([0.0] * 6).p_value == 1
    with pytest.raises(ValueError, match="too many signs"):
        sign_flip([0.01] * 21)
