"""Uncertainty of results: bootstrap over sentences, paired comparison, Holm, spread over seeds.

Axis letters: S sentences, C counts a sentence, R resamples. A statistic is a function of summed
counts, (…, C) to (…): it is computed again from the counts of every resample, never averaged over
sentences. All draws come from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.records import Score

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

_DRAWS_PER_CHUNK = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its percentile bootstrap interval.

    Attributes:
        value: the statistic on all S sentences.
        low: lower limit.
        high: upper limit.
        level: coverage asked for, for example 0.95.
        num_resamples: R.
    """

    value: float
    low: float
    high: float
    level: float
    num_resamples: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same sentences.

    Attributes:
        difference: statistic of a minus statistic of b, with its interval.
        p_value: two-sided, at least 1/(R + 1).
    """

    difference: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean over seeds, and the sample standard deviation, None for a single seed."""

    mean: float
    deviation: float | None
    num_seeds: int


def count_array(scores: Iterable[Score]) -> FloatArray:
    """Return (S, 3) counts: true positives, false positives, false negatives of each sentence."""
    rows = [(s.true_positives, s.false_positives, s.false_negatives) for s in scores]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def micro_f1(counts: FloatArray) -> FloatArray:
    """Return F1 of summed counts; F1 of nothing against nothing is 1.

    Args:
        counts: (…, 3) true positives, false positives, false negatives.
    """
    right = 2 * counts[..., 0]
    total = right + counts[..., 1] + counts[..., 2]
    return np.asarray(np.where(total > 0, right / np.where(total > 0, total, 1.0), 1.0))


def bootstrap_interval(
    counts: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = micro_f1,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of a statistic over sentences (Efron 1979).

    Args:
        counts: (S, C) counts of each sentence.
        rng: source of the resamples.
        statistic: summed counts (…, C) to values (…).
        num_resamples: R, at least 1.
        level: coverage, in (0, 1).

    Raises:
        ValueError: there is no sentence, a count is not finite, or R or the level is out of range.
    """
    table = _check(counts, num_resamples, level)
    chunks = [statistic(weights @ table) for weights in _resample(len(table), num_resamples, rng)]
    value = float(statistic(table.sum(axis=0)))
    return _interval(value, np.concatenate(chunks), level)


def paired_bootstrap(
    a_counts: ArrayLike,
    b_counts: ArrayLike,
    rng: np.random.Generator,
    *,
    statistic: Statistic = micro_f1,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Comparison:
    """Compare two systems on the same resamples of the same sentences.

    The p-value is the share of resamples whose difference is at least as far from the observed one
    as that is from 0: Berg-Kirkpatrick 2012 (D12-1091) made two-sided, with the observed sample
    counted as one resample, so that it is never 0.

    Args:
        a_counts: (S, C) counts of each sentence, system a.
        b_counts: (S, C) counts of the same sentences, system b.
        rng: source of the resamples.
        statistic: summed counts (…, C) to values (…).
        num_resamples: R, at least 1.
        level: coverage of the interval of the difference, in (0, 1).

    Raises:
        ValueError: shapes differ, or as :func:`bootstrap_interval` does.
    """
    a_table = _check(a_counts, num_resamples, level)
    b_table = _check(b_counts, num_resamples, level)
    if a_table.shape != b_table.shape:
        raise ValueError(
            f"counts {a_table.shape} and {b_table.shape} are not of the same sentences"
        )
    chunks = [
        statistic(weights @ a_table) - statistic(weights @ b_table)
        for weights in _resample(len(a_table), num_resamples, rng)
    ]
    differences = np.concatenate(chunks)
    value = float(statistic(a_table.sum(axis=0)) - statistic(b_table.sum(axis=0)))
    # Rounding must not tell apart resamples that are exactly as far.
    num_as_far = int((np.abs(differences - value) >= abs(value) - 1e-12).sum())
    p_value = (num_as_far + 1) / (num_resamples + 1)
    return Comparison(_interval(value, differences, level), p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of comparisons, in the order given (Holm 1979).

    The i-th smallest of m becomes the largest of (m − j + 1)·p_j over j ≤ i, at most 1.

    Raises:
        ValueError: a p-value is not in [0, 1].
    """
    if not all(0 <= value <= 1 for value in p_values):
        raise ValueError(f"p-values {list(p_values)} are not all in [0, 1]")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def seed_spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation (n − 1) of one result over seeds.

    Raises:
        ValueError: there is no value, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"values over seeds {list(values)} are missing or not finite")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None, 1)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return Spread(mean, math.sqrt(squares / (len(values) - 1)), len(values))


def _resample(
    num_sentences: int, num_resamples: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield, R rows in all, how often each of S sentences is drawn: chunks of (r, S)."""
    height = max(1, _DRAWS_PER_CHUNK // num_sentences)
    for start in range(0, num_resamples, height):
        rows = min(height, num_resamples - start)
        drawn = rng.integers(num_sentences, size=(rows, num_sentences))
        drawn += np.arange(rows)[:, None] * num_sentences
        times = np.bincount(drawn.ravel(), minlength=rows * num_sentences)
        yield times.reshape(rows, num_sentences).astype(np.float64)


def _interval(value: float, resampled: FloatArray, level: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, len(resampled))


def _check(counts: ArrayLike, num_resamples: int, level: float) -> FloatArray:
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"counts have shape {table.shape}, not (sentences, counts)")
    if not np.isfinite(table).all():
        raise ValueError("a count is not finite")
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}, not at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not in (0, 1)")
    return table
