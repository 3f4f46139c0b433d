"""Pacing: which share of the ordered inputs is open at a given training progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

PACINGS = ("linear", "root", "log", "exponential", "step", "constant")
"""Names that :func:`open_share` accepts."""

DEFAULT_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Open shares of the static curriculum, one an epoch."""

# Far above rounding error, far below one input in any data set: t = 29/100 over 100 steps must
# open step 29 although 0.29 * 100 is 28.999999999999996, and a share 0.7 of 10 is 7, not 8.
_ROUNDING = 1e-12


def open_share(
    t: float,
    pacing: str,
    *,
    start: float,
    power: float = 2.0,
    alpha: float = 10.0,
    shares: Sequence[float] = DEFAULT_SHARES,
) -> float:
    """Return the open share c(t) of the order; it never falls, and c(1) = 1 exactly.

    ======================  =====================================================
    ``linear``              c0 + (1 − c0)·t
    ``root``                (c0^p + (1 − c0^p)·t)^(1/p), Platanios 1903.09848
    ``log``                 c0 + (1 − c0)·ln(1 + αt)/ln(1 + α)
    ``exponential``         c0^(1 − t)
    ``step``                the listed shares, each for an equal part of training
    ``constant``            1: every input from the first step
    ======================  =====================================================

    Args:
        t: training progress in [0, 1].
        pacing: one of ``PACINGS``.
        start: c0 in (0, 1], the share open at t = 0; ``step`` and ``constant`` do not use it.
        power: p > 0 of ``root``; 1 gives ``linear``, more opens sooner.
        alpha: α > 0 of ``log``; near 0 gives ``linear``, more opens sooner.
        shares: of ``step``: strictly increasing, in (0, 1], the last one 1.

    Raises:
        ValueError: an argument is out of range, or the pacing is unknown.
    """
    _check(t, start, power, alpha, shares)
    if pacing == "linear":
        share = start + (1 - start) * t
    elif pacing == "root":
        share = (start**power + (1 - start**power) * t) ** (1 / power)
    elif pacing == "log":
        share = start + (1 - start) * (math.log1p(alpha * t) / math.log1p(alpha))
    elif pacing == "exponential":
        share = start ** (1 - t)
    elif pacing == "step":
        step = min(math.floor(t * len(shares) * (1 + _ROUNDING)), len(shares) - 1)
        return float(shares[step])
    elif pacing == "constant":
        return 1.0
    else:
        raise ValueError(f"pacing {pacing!r} is not one of {', '.join(PACINGS)}")
    return 1.0 if t == 1 else min(1.0, max(start, share))


def num_open(
    t: float,
    total: int,
    pacing: str,
    *,
    start: float,
    power: float = 2.0,
    alpha: float = 10.0,
    shares: Sequence[float] = DEFAULT_SHARES,
) -> int:
    """Return how many of the ordered inputs are open: c(t)·total rounded up, at least 1.

    Args:
        t: training progress in [0, 1].
        total: inputs in the order, at least 1.
        pacing: one of ``PACINGS``.
        start: see :func:`open_share`.
        power: see :func:`open_share`.
        alpha: see :func:`open_share`.
        shares: see :func:`open_share`.

    Raises:
        ValueError: there are no inputs, or :func:`open_share` refuses its arguments.
    """
    if total < 1:
        raise ValueError(f"total is {total}: there is no input to open")
    share = open_share(t, pacing, start=start, power=power, alpha=alpha, shares=shares)
    return min(total, max(1, math.ceil(share * total * (1 - _ROUNDING))))


def _check(t: float, start: float, power: float, alpha: float, shares: Sequence[float]) -> None:
    """Raise ValueError on the first argument that is out of range (NaN always is)."""
    if not 0 <= t <= 1:
        raise ValueError(f"training progress t is {t}, not in [0, 1]")
    if not 0 < start <= 1:
        raise ValueError(f"start is {start}, not in (0, 1]")
    for name, value in (("power", power), ("alpha", alpha)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}, not a finite number above 0")
    if not shares or shares[-1] != 1:
        raise ValueError(f"shares {list(shares)} do not end at 1")
    bounds = (0.0, *shares)
    if not all(low < high for low, high in pairwise(bounds)):
        raise ValueError(f"shares {list(shares)} do not increase from above 0 to 1")
