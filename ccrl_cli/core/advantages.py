"""Advantages of a group of rollouts, and where a weight for each input belongs.

What the trainer does with rewards, as a formula: for previews of the learning signal, and to show
that a weight on the reward is lost where advantages are divided by their group's spread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

SCALES = ("none", "group", "batch")
"""What advantages are divided by."""

_EPSILON = 1e-4


def group_advantages(
    rewards_pg: ArrayLike, scale: str = "none", weights_p: ArrayLike | None = None
) -> FloatArray:
    """Return the advantages of P prompts with G rollouts each, weighted by prompt.

    GRPO (Shao 2402.03300) subtracts the mean of the group and divides by its standard deviation;
    Dr. GRPO (Liu 2503.20783) leaves the division out. The weight multiplies the advantage: 0
    removes the prompt from the gradient, whatever the scale.

    Args:
        rewards_pg: rewards.
        scale: ``none``, ``group`` or ``batch``: the standard deviation (n − 1) to divide by, plus
            1e-4, as TRL has it.
        weights_p: weight of each prompt; None: 1.

    Raises:
        ValueError: the shape is not (P, G) with G of at least 2, or the scale is unknown.
    """
    rewards = np.asarray(rewards_pg, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards have shape {rewards.shape}, not (P, G) with G of at least 2")
    if scale not in SCALES:
        raise ValueError(f"scale is {scale!r}, not one of {', '.join(SCALES)}")
    advantages = rewards - rewards.mean(axis=1, keepdims=True)
    if scale == "group":
        advantages = advantages / (rewards.std(axis=1, ddof=1, keepdims=True) + _EPSILON)
    elif scale == "batch":
        advantages = advantages / (rewards.std(ddof=1) + _EPSILON)
    if weights_p is not None:
        advantages = advantages * np.asarray(weights_p, dtype=np.float64)[:, None]
    return np.asarray(advantages)


def has_signal(rewards: ArrayLike) -> bool:
    """Return whether a group of rewards gives any gradient: not all of them are equal."""
    values = np.asarray(rewards, dtype=np.float64)
    return bool(values.size and values.max() - values.min() > 1e-9)
