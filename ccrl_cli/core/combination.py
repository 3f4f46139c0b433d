"""Confidence metrics combined into one: a weighted geometric mean, or a fitted logistic model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

METRICS = (
    "self_consistency",
    "semantic_entropy",
    "entity_vote",
    "logprob",
    "type_posterior",
    "combined",
)
"""Names of the metrics that ``core.confidence`` knows."""


@dataclass(frozen=True, slots=True)
class GeometricMean:
    """Weighted geometric mean of named metrics: (Π m^w)^(1/Σw).

    Attributes:
        weights: metric name to weight.

    Raises:
        ValueError: no weight is above 0, or one is negative or not finite.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        _check_names(self.weights)
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights.values()):
            raise ValueError(f"weights {dict(self.weights)} are not all finite and at least 0")
        if not sum(self.weights.values()) > 0:
            raise ValueError(f"weights {dict(self.weights)} have no weight above 0")

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are combined."""
        return tuple(name for name, weight in self.weights.items() if weight > 0)


@dataclass(frozen=True, slots=True)
class LogisticCombination:
    """Logistic regression over named metrics, as fitted on a calibration split.

    Attributes:
        intercept: b of 1 / (1 + exp(−b − Σ w·m)).
        coefficients: metric name to w.
    """

    intercept: float
    coefficients: Mapping[str, float]

    def __post_init__(self) -> None:
        _check_names(self.coefficients)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that are combined."""
        return tuple(self.coefficients)


Combination = GeometricMean | LogisticCombination


def combined(values: Mapping[str, ArrayLike], combination: Combination) -> FloatArray:
    """Apply a combination to metric values of any one shape.

    Args:
        values: metric name to values in [0, 1].
        combination: weights or fitted coefficients; names it does not use are ignored.

    Returns:
        Values in [0, 1], of the same shape.

    Raises:
        ValueError: a metric that the combination uses is missing.
    """
    missing = [name for name in combination.metrics if name not in values]
    if missing:
        raise ValueError(f"no values for {', '.join(missing)}")
    metrics = {name: np.asarray(values[name], dtype=np.float64) for name in combination.metrics}
    if isinstance(combination, LogisticCombination):
        score = combination.intercept + sum(
            combination.coefficients[name] * value for name, value in metrics.items()
        )
        return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(score))))
    total = sum(combination.weights.values())
    product = np.ones(())
    for name, value in metrics.items():
        product = product * value ** (combination.weights[name] / total)
    return np.asarray(np.clip(product, 0.0, 1.0))


def _check_names(names: Mapping[str, float]) -> None:
    unknown = [name for name in names if name not in METRICS or name == "combined"]
    if unknown or not names:
        known = ", ".join(METRICS[:-1])
        raise ValueError(f"cannot combine {unknown or 'no metric at all'}: not among {known}")
