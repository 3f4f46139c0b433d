"""Student's t distribution with any positive number of degrees of freedom, whole or not.

Tested against ``scipy.stats.t``, which is too large a dependency for two functions.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_STEPS = 500


def student_t_cdf(value: float, degrees: float) -> float:
    """Return P(T <= value), by the regularised incomplete beta function (DLMF 8.17).

    Args:
        value: a finite number, or an infinite one.
        degrees: degrees of freedom, above 0.

    Raises:
        ValueError: degrees are not above 0, or the value is no number.
    """
    if not degrees > 0 or math.isnan(value):
        raise ValueError(f"t = {value} with {degrees} degrees of freedom is not defined")
    if math.isinf(value):
        return float(value > 0)
    # Of the two forms of the same tail the one that does not cancel.
    square = value * value
    if square < degrees:
        near = _incomplete_beta(0.5, degrees / 2, square / (degrees + square))
        return 0.5 + math.copysign(near, value) / 2
    tail = _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + square)) / 2
    return 1 - tail if value > 0 else tail


def student_t_quantile(share: float, degrees: float) -> float:
    """Return the value that a share of the distribution lies below.

    Newton's steps on the distribution function, each kept inside what is known to hold the value.

    Args:
        share: in (0, 1).
        degrees: degrees of freedom, above 0.

    Raises:
        ValueError: the share is not in (0, 1), or degrees are not above 0.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, not in (0, 1)")
    if share > 0.5:
        return -student_t_quantile(1 - share, degrees)
    low, high = -1.0, 0.0
    while student_t_cdf(low, degrees) > share:
        low, high = 2 * low, low
    value = low
    for _ in range(_STEPS):
        excess = student_t_cdf(value, degrees) - share
        low, high = (low, value) if excess > 0 else (value, high)
        step = value - excess / _density(value, degrees)
        following = step if low < step < high else (low + high) / 2
        if abs(following - value) <= 1e-11 * abs(value):
            return following
        value = following
    return value


def _density(value: float, degrees: float) -> float:
    log_front = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    log_front -= math.log(degrees * math.pi) / 2
    return math.exp(log_front - (degrees + 1) / 2 * math.log1p(value * value / degrees))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b), its continued fraction (DLMF 8.17.22) by Lentz's method."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    top, bottom = 1.0, 1 / _away_from_0(1 - (a + b) * x / (a + 1))
    total = bottom
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            bottom = 1 / _away_from_0(1 + term * bottom)
            top = _away_from_0(1 + term / top)
            total *= top * bottom
        if abs(top * bottom - 1) < 1e-15:
            break
    return math.exp(log_front) * total / a


def _away_from_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
