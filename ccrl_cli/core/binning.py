"""Bins of confidence: which inputs are about equally sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_cli.core.reliability import check_pairs, reliability_bins

BIN_RULES = ("mass", "fixed")
"""Rules that :func:`bin_inputs` accepts."""

# 0.7 of 10 bins is bin 7, although 0.7 may come as 0.7 minus the rounding of a mean.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Bin:
    """A range of confidence.

    Attributes:
        low: ``fixed``: lower edge; ``mass``: smallest confidence in the bin.
        high: ``fixed``: upper edge, excluded unless 1; ``mass``: largest confidence in the bin.
        members: positions of its inputs, least sure first.
    """

    low: float
    high: float
    members: tuple[int, ...]


def bin_inputs(
    confidences: Sequence[float], rule: str = "mass", *, num_bins: int = 10
) -> tuple[Bin, ...]:
    """Return bins of N inputs, least sure first.

    ``mass``: bins of equal mass in which equal confidences stay together, those of
    :func:`ccrl_cli.core.reliability.reliability_bins`; empty ones are left out.
    ``fixed``: B ranges of equal width over [0, 1], empty ones kept.

    Args:
        confidences: N confidences in [0, 1].
        rule: one of ``BIN_RULES``.
        num_bins: B, at least 1.

    Raises:
        ValueError: no values, a value outside [0, 1], no bin, or the rule is unknown.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, not at least 1")
    values, _ = check_pairs(confidences, confidences)
    order = np.argsort(values, kind="stable")
    if rule == "mass":
        sizes = [part.count for part in reliability_bins(values, values, num_bins=num_bins)]
        groups = np.split(order, np.cumsum(sizes)[:-1])
        return tuple(
            Bin(float(values[group[0]]), float(values[group[-1]]), tuple(map(int, group)))
            for group in groups
        )
    if rule != "fixed":
        raise ValueError(f"bins are {rule!r}, not one of {', '.join(BIN_RULES)}")
    places = np.minimum((values[order] + _ROUNDING) * num_bins, num_bins - 1).astype(int)
    sizes = list(np.bincount(places, minlength=num_bins))
    return tuple(
        Bin(number / num_bins, (number + 1) / num_bins, tuple(map(int, group)))
        for number, group in enumerate(np.split(order, np.cumsum(sizes)[:-1]))
    )
