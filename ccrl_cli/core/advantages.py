"""Whether a group of rewards gives any gradient."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def has_signal(rewards: ArrayLike) -> bool:
    """Return whether a group of rewards gives any gradient: not all of them are equal."""
    values = np.asarray(rewards, dtype=np.float64)
    return bool(values.size and values.max() - values.min() > 1e-9)
