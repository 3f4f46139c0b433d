"""Uncertainty of results: over sentences, over trainings, over domains; Holm; spread over seeds.

A bootstrap over sentences says what *these weights* would score on other sentences. What a recipe
is worth needs other trainings: there the unit is a pair of trainings (`paired_trainings`), and over
domains it is a domain (`sign_flip`).

Axis letters: S sentences, C counts a sentence, R resamples. A statistic is a function of summed
counts, (…, C) to (…): it is computed again from the counts of every resample, never averaged over
sentences. All draws come from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.student_t import student_t_cdf, student_t_quantile
from ccrl_cli.records import Score

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]

_DRAWS_PER_CHUNK = 2_000_000

MIN_PAIRS = 5
"""Pairs of trainings below which nothing is said of a difference between two recipes."""

MIN_DOMAINS = 6
"""Domains below which nothing is said over domains: five cannot reach p < 0.05, 2/2^5 = 0.06."""

MAX_DOMAINS = 20
"""Domains up to which all signs are tried, about a million."""


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
        standard_error: standard deviation of the difference over resamples; 0 for one resample.
    """

    difference: Interval
    p_value: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class PairedTrainings:
    """A difference between two recipes over pairs of trainings.

    Attributes:
        differences: first minus second, one a pair.
        mean: of them.
        deviation: their sample standard deviation; None for a single pair.
        sentence_error: standard error of the mean over the scored sentences.
        degrees: Satterthwaite's degrees of freedom; None below `MIN_PAIRS`, as all that follows.
        low: lower limit of the interval of the mean.
        high: upper limit.
        level: coverage asked for, for example 0.95.
        p_value: two-sided.
    """

    differences: tuple[float, ...]
    mean: float
    deviation: float | None
    sentence_error: float
    degrees: float | None
    low: float | None
    high: float | None
    level: float
    p_value: float | None


@dataclass(frozen=True, slots=True)
class SignFlip:
    """A difference between two recipes over domains.

    Attributes:
        differences: first minus second, one a domain.
        mean: of them.
        standard_error: of the mean, over domains; None for a single one.
        p_value: two-sided and exact; None below `MIN_DOMAINS`.
    """

    differences: tuple[float, ...]
    mean: float
    standard_error: float | None
    p_value: float | None


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


def mean_micro_f1(counts: FloatArray) -> FloatArray:
    """Return the mean over N trainings of F1 of summed counts.

    Args:
        counts: (…, 3N), of each training the three of :func:`micro_f1`, one after the other.
    """
    return np.asarray(micro_f1(counts.reshape(*counts.shape[:-1], -1, 3)).mean(axis=-1))


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
    error = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return Comparison(_interval(value, differences, level), p_value, error)


def paired_trainings(
    differences: Sequence[float],
    sentence_error: float,
    num_sentences: int,
    *,
    level: float = 0.95,
) -> PairedTrainings:
    """Compare two recipes with a pair of trainings as the unit.

    A pair shares seed, warm-up and labels. Trainings and scored sentences are both draws, so the
    variance of the mean difference is V = s²/n + e², s the deviation between n pairs and e the
    standard error over S sentences. mean / √V is held against Student's t with the degrees of
    freedom V² / ((s²/n)²/(n − 1) + e⁴/(S − 1)) (Satterthwaite 1946). s holds a part of what e
    holds, so the test is a little conservative. Below `MIN_PAIRS` pairs there is no answer.

    Args:
        differences: first minus second, one a pair.
        sentence_error: e, in the unit of the differences.
        num_sentences: S, at least 1.
        level: coverage of the interval, in (0, 1).

    Raises:
        ValueError: there is no pair, a value is not finite, or an option is out of range.
    """
    spread = seed_spread(differences)
    if not (math.isfinite(sentence_error) and sentence_error >= 0):
        raise ValueError(f"sentence_error is {sentence_error}, not at least 0")
    if num_sentences < 1:
        raise ValueError(f"num_sentences is {num_sentences}, not at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not in (0, 1)")
    given = (tuple(differences), spread.mean, spread.deviation, sentence_error)
    if spread.deviation is None or spread.num_seeds < MIN_PAIRS:
        return PairedTrainings(*given, None, None, None, level, None)
    between = spread.deviation**2 / spread.num_seeds
    within = sentence_error**2
    if between + within == 0:  # the same in every pair, whatever the sentences
        p_value = float(spread.mean == 0)
        return PairedTrainings(*given, None, spread.mean, spread.mean, level, p_value)
    degrees = (between + within) ** 2 / (
        between**2 / (spread.num_seeds - 1) + within**2 / max(1, num_sentences - 1)
    )
    error = math.sqrt(between + within)
    reach = student_t_quantile((1 + level) / 2, degrees) * error
    p_value = 2 * student_t_cdf(-abs(spread.mean) / error, degrees)
    return PairedTrainings(
        *given, degrees, spread.mean - reach, spread.mean + reach, level, p_value
    )


def sign_flip(differences: Sequence[float]) -> SignFlip:
    """Compare two recipes with a domain as the unit, by the exact sign-flip test (Fisher 1935).

    If neither recipe were better, each domain's difference could as well have had the other sign.
    The p-value is the share of all 2^n choices of signs whose mean is at least as far from 0.

    Args:
        differences: first minus second, the mean over trainings of each domain.

    Raises:
        ValueError: there is no domain, more than `MAX_DOMAINS`, or a value is not finite.
    """
    spread = seed_spread(differences)
    number = spread.num_seeds
    error = None if spread.deviation is None else spread.deviation / math.sqrt(number)
    if number > MAX_DOMAINS:
        raise ValueError(f"{number} domains have too many signs to try, {MAX_DOMAINS} at most")
    p_value = None
    if number >= MIN_DOMAINS:
        # Half of the choices: the other half has the opposite signs, and is exactly as far.
        signs = np.array(list(product((1.0, -1.0), repeat=number - 1)))
        values = np.asarray(differences, dtype=np.float64)
        sums = np.abs(values[0] + signs @ values[1:])
        p_value = float((sums >= abs(values.sum()) - 1e-12).mean())
    return SignFlip(tuple(differences), spread.mean, error, p_value)


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
