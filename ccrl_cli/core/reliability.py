"""How good a confidence is: ECE, Brier score, AUROC, risk by coverage.

N confidences in [0, 1] are compared with N targets in [0, 1]: 1 for a right answer, 0 for a wrong
one, or a fraction such as entity F1. Report them on a split that no calibrator was fitted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


def check_pairs(confidences: ArrayLike, targets: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as float arrays of one length; NaN is outside [0, 1].

    Raises:
        ValueError: no values, different lengths, or a value outside [0, 1].
    """
    scores, goals = np.asarray(confidences, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != goals.shape or not len(scores):
        raise ValueError(f"confidences {scores.shape} and targets {goals.shape} do not pair up")
    for name, values in (("confidence", scores), ("target", goals)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"a {name} is not in [0, 1]")
    return scores, goals


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Inputs of similar confidence: how many, mean confidence, mean target."""

    count: int
    mean_confidence: float
    mean_target: float


def reliability_bins(
    confidences: ArrayLike, targets: ArrayLike, *, num_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Return bins of equal mass in order of confidence, empty ones left out.

    An input's bin is the part of B in which its midrank falls, so equal confidences stay together
    and the order of the inputs plays no part. Confidences out of K samples have at most K + 1
    values: then there are fewer bins, of unequal mass.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.
        num_bins: B, at least 1.

    Raises:
        ValueError: no values, different lengths, a value outside [0, 1], or no bin.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, not at least 1")
    scores, goals = check_pairs(confidences, targets)
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    bins = np.floor(num_bins * middle / len(scores)).astype(np.int64)[inverse]
    masses = np.bincount(bins, minlength=num_bins)
    score_sums = np.bincount(bins, weights=scores, minlength=num_bins)
    goal_sums = np.bincount(bins, weights=goals, minlength=num_bins)
    return tuple(
        ReliabilityBin(int(mass), float(score / mass), float(goal / mass))
        for mass, score, goal in zip(masses, score_sums, goal_sums, strict=True)
        if mass
    )


def ece(confidences: ArrayLike, targets: ArrayLike, *, num_bins: int = 10) -> float:
    """Return the expected calibration error: Σ mass·|mean confidence − mean target| over bins.

    Naeini 2015 with the equal-mass bins of :func:`reliability_bins`. State B beside the value.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.
        num_bins: B, at least 1.

    Raises:
        ValueError: as :func:`reliability_bins` does.
    """
    bins = reliability_bins(confidences, targets, num_bins=num_bins)
    total = sum(part.count for part in bins)
    gaps = (part.count * abs(part.mean_confidence - part.mean_target) for part in bins)
    return math.fsum(gaps) / total


def brier(confidences: ArrayLike, targets: ArrayLike) -> float:
    """Return the mean squared difference (Brier 1950); for fractional targets too.

    Raises:
        ValueError: no values, different lengths, or a value outside [0, 1].
    """
    scores, goals = check_pairs(confidences, targets)
    return float(((scores - goals) ** 2).mean())


def auroc(confidences: ArrayLike, targets: ArrayLike) -> float | None:
    """Return the chance that a right answer is surer than a wrong one, ties counted half.

    Mann-Whitney U from midranks. None if all answers are right, or all wrong.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets, each 0 or 1.

    Raises:
        ValueError: no values, different lengths, a value outside [0, 1], or a fractional target.
    """
    scores, goals = check_pairs(confidences, targets)
    if not np.isin(goals, (0.0, 1.0)).all():
        raise ValueError("AUROC needs targets of 0 or 1, not fractions")
    num_right = int(goals.sum())
    num_wrong = len(goals) - num_right
    if not num_right or not num_wrong:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    midranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    excess = midranks[goals == 1].sum() - num_right * (num_right + 1) / 2
    return float(excess / (num_right * num_wrong))


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Risk of the surest inputs, by how many are covered (Geifman and El-Yaniv 1705.08500).

    Attributes:
        coverage: 1/N, 2/N, … 1.
        risk: mean of 1 − target over the inputs covered.
    """

    coverage: FloatArray
    risk: FloatArray

    @property
    def area(self) -> float:
        """Mean risk over all N coverages (AURC, 1805.08206); lower is better."""
        return float(self.risk.mean())


def risk_coverage(confidences: ArrayLike, targets: ArrayLike) -> RiskCoverage:
    """Return risk by coverage; among equal confidences the order is random, so the mean is taken.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.

    Raises:
        ValueError: no values, different lengths, or a value outside [0, 1].
    """
    scores, goals = check_pairs(confidences, targets)
    _, inverse, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, weights=1 - goals) / counts
    covered = np.arange(1, len(scores) + 1)
    risk = np.cumsum(np.repeat(means, counts)) / covered
    return RiskCoverage(covered / len(scores), risk)
