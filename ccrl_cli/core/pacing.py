"""Pacing: which share of the ordered inputs is open at a given training progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

PACINGS = ("linear", "root", "log", "exponential", "step", "constant")
"""Shapes of :class:`Pacing`."""

DEFAULT_SHARES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Open shares of the static curriculum, one an epoch."""

# Far above rounding error, far below one input in any data set: t = 29/100 over 100 steps must
# open step 29 although 0.29 * 100 is 28.999999999999996, and a share 0.7 of 10 is 7, not 8.
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Pacing:
    """The open share c(t) of an order; it never falls, and c(1) = 1 exactly.

    ======================  =====================================================
    ``linear``              c0 + (1 − c0)·t
    ``root``                (c0^p + (1 − c0^p)·t)^(1/p), Platanios 1903.09848
    ``log``                 c0 + (1 − c0)·ln(1 + αt)/ln(1 + α)
    ``exponential``         c0^(1 − t)
    ``step``                the listed shares, each for an equal part of training
    ``constant``            1: every input from the first step
    ======================  =====================================================

    Attributes:
        shape: one of ``PACINGS``.
        start: c0 in (0, 1], the share open at t = 0; ``step`` and ``constant`` do not use it.
        power: p > 0 of ``root``; 1 gives ``linear``, more opens sooner.
        alpha: α > 0 of ``log``; near 0 gives ``linear``, more opens sooner.
        shares: of ``step``: strictly increasing, in (0, 1], the last one 1.

    Raises:
        ValueError: a value is out of range, or the shape is unknown.
    """

    shape: str
    start: float = 0.1
    power: float = 2.0
    alpha: float = 10.0
    shares: tuple[float, ...] = DEFAULT_SHARES

    def __post_init__(self) -> None:
        if self.shape not in PACINGS:
            raise ValueError(f"pacing {self.shape!r} is not one of {', '.join(PACINGS)}")
        if not 0 < self.start <= 1:  # NaN is out of every range
            raise ValueError(f"start is {self.start}, not in (0, 1]")
        for name, value in (("power", self.power), ("alpha", self.alpha)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}, not a finite number above 0")
        if not self.shares or self.shares[-1] != 1:
            raise ValueError(f"shares {list(self.shares)} do not end at 1")
        bounds = (0.0, *self.shares)
        if not all(low < high for low, high in pairwise(bounds)):
            raise ValueError(f"shares {list(self.shares)} do not increase from above 0 to 1")

    def share(self, t: float) -> float:
        """Return the open share at training progress t in [0, 1].

        Raises:
            ValueError: t is out of range.
        """
        if not 0 <= t <= 1:
            raise ValueError(f"training progress t is {t}, not in [0, 1]")
        if self.shape == "constant" or (t == 1 and self.shape != "step"):
            return 1.0
        if self.shape == "step":
            place = math.floor(t * len(self.shares) * (1 + _ROUNDING))
            return float(self.shares[min(place, len(self.shares) - 1)])
        start, power = self.start, self.power
        if self.shape == "linear":
            share = start + (1 - start) * t
        elif self.shape == "root":
            share = (start**power + (1 - start**power) * t) ** (1 / power)
        elif self.shape == "log":
            share = start + (1 - start) * (math.log1p(self.alpha * t) / math.log1p(self.alpha))
        else:
            share = start ** (1 - t)
        return min(1.0, max(start, share))

    def num_open(self, t: float, total: int) -> int:
        """Return how many of `total` ordered inputs are open: c(t)·total rounded up, at least 1.

        Raises:
            ValueError: there are no inputs, or t is out of range.
        """
        if total < 1:
            raise ValueError(f"total is {total}: there is no input to open")
        return min(total, max(1, math.ceil(self.share(t) * total * (1 - _ROUNDING))))
