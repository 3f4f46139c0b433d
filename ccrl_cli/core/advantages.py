"""Whether a group of rewards gives any gradient.

One tolerance for the learning-signal gate, the telemetry and the advantages: rewards are sums of
floats, so equal ones may differ in the last bit, and their mean need not be their value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-9
"""Rewards of a group that lie this close to one another are equal."""


def reward_spread(rewards: ArrayLike) -> float:
    """Return the standard deviation of a group's rewards; exactly 0 where all of them are equal.

    Args:
        rewards: (G,) rewards of one prompt.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if not values.size or values.max() - values.min() <= TOLERANCE:
        return 0.0
    return float(values.std())


def has_signal(rewards: ArrayLike) -> bool:
    """Return whether a group of rewards gives any gradient: not all of them are equal."""
    return reward_spread(rewards) > 0.0
