"""How well confidence tells right answers from wrong ones, with its uncertainty."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ccrl_cli.core.reliability import auroc, check_pairs
from ccrl_cli.core.statistics import Interval


def auroc_interval(
    confidences: ArrayLike,
    targets: ArrayLike,
    rng: np.random.Generator,
    *,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval | None:
    """Return AUROC with its percentile bootstrap interval; None if all are right, or all wrong.

    Right and wrong answers are resampled apart, so that every resample has both (the stratified
    bootstrap of pROC, Robin 2011). With a handful of either the interval is too narrow: state how
    many there are.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets, each 0 or 1.
        rng: source of the resamples.
        num_resamples: R, at least 1.
        level: coverage, in (0, 1).

    Raises:
        ValueError: as :func:`ccrl_cli.core.reliability.auroc` does, or R or the level is out of
            range.
    """
    if num_resamples < 1:
        raise ValueError(f"num_resamples is {num_resamples}, not at least 1")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}, not in (0, 1)")
    value = auroc(confidences, targets)
    if value is None:
        return None
    scores, goals = check_pairs(confidences, targets)
    levels, places = np.unique(scores, return_inverse=True)
    right, wrong = places[goals == 1], places[goals == 0]
    resampled = np.empty(num_resamples)
    for index in range(num_resamples):
        right_v = np.bincount(rng.choice(right, len(right)), minlength=len(levels))
        wrong_v = np.bincount(rng.choice(wrong, len(wrong)), minlength=len(levels))
        # A right answer beats the wrong ones below its level, and half of those at it.
        beaten_v = np.cumsum(wrong_v) - wrong_v / 2
        resampled[index] = right_v @ beaten_v / (len(right) * len(wrong))
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level, num_resamples)
