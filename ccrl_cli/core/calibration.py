"""Calibration of a confidence on a small labelled split: temperature, Platt, isotonic.

N confidences in [0, 1] are fitted to N targets in [0, 1]: 1 for a right answer, 0 for a wrong one,
or a fraction such as entity F1, whose cross-entropy is then minimised. A monotone calibrator moves
thresholds and weights, not the order of the inputs. Whether it helped is for
:mod:`ccrl_cli.core.reliability` to say, on a split that was not fitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ccrl_cli.core.combination import LogisticCombination
from ccrl_cli.core.reliability import check_pairs

FloatArray = NDArray[np.float64]

_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.01, 100.0
_MAX_ITERATIONS = 100
_GRADIENT_TOLERANCE = 1e-10
_APART = 1e-9


@dataclass(frozen=True, slots=True)
class Temperature:
    """sigmoid(logit(confidence) / T), Guo 1706.04599 for one score.

    Attributes:
        temperature: T; above 1 softens, below 1 sharpens.
        clip: confidences are first moved into [clip, 1 − clip], since 0 and 1 have no logit.
    """

    kind: ClassVar[str] = "temperature"
    temperature: float
    clip: float = 1e-3

    def __call__(self, confidences: ArrayLike) -> FloatArray:
        """Return calibrated confidences, of the same shape."""
        return _sigmoid(_logit(_to_array(confidences), self.clip) / self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Return what :func:`calibrator_from_dict` reads."""
        return {"kind": self.kind, "temperature": self.temperature, "clip": self.clip}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Temperature:
        """Return the calibrator that :meth:`to_dict` described."""
        return cls(float(values["temperature"]), float(values["clip"]))


@dataclass(frozen=True, slots=True)
class Platt:
    """sigmoid(slope·confidence + intercept), Platt 1999.

    Attributes:
        slope: below 0 only if higher confidence went with worse answers, and then the order of
            inputs is reversed.
        intercept: log-odds at confidence 0.
    """

    kind: ClassVar[str] = "platt"
    slope: float
    intercept: float

    def __call__(self, confidences: ArrayLike) -> FloatArray:
        """Return calibrated confidences, of the same shape."""
        return _sigmoid(self.slope * _to_array(confidences) + self.intercept)

    def to_dict(self) -> dict[str, Any]:
        """Return what :func:`calibrator_from_dict` reads."""
        return {"kind": self.kind, "slope": self.slope, "intercept": self.intercept}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Platt:
        """Return the calibrator that :meth:`to_dict` described."""
        return cls(float(values["slope"]), float(values["intercept"]))


@dataclass(frozen=True, slots=True)
class Isotonic:
    """The non-decreasing step function of least squares (Zadrozny and Elkan 2002).

    Linear between knots, constant outside them. Equal outputs make ties that were none before.

    Attributes:
        confidences: knots, increasing.
        values: value at each knot, non-decreasing, in [0, 1].
    """

    kind: ClassVar[str] = "isotonic"
    confidences: tuple[float, ...]
    values: tuple[float, ...]

    def __call__(self, confidences: ArrayLike) -> FloatArray:
        """Return calibrated confidences, of the same shape."""
        return np.asarray(np.interp(_to_array(confidences), self.confidences, self.values))

    def to_dict(self) -> dict[str, Any]:
        """Return what :func:`calibrator_from_dict` reads."""
        return {
            "kind": self.kind,
            "confidences": list(self.confidences),
            "values": list(self.values),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Isotonic:
        """Return the calibrator that :meth:`to_dict` described."""
        return cls(tuple(map(float, values["confidences"])), tuple(map(float, values["values"])))


Calibrator = Temperature | Platt | Isotonic


def calibrator_from_dict(values: Mapping[str, Any]) -> Calibrator:
    """Return the calibrator that a ``to_dict`` described.

    Raises:
        ValueError: the kind is unknown or a value is missing.
    """
    kinds: dict[str, type[Calibrator]] = {
        "temperature": Temperature,
        "platt": Platt,
        "isotonic": Isotonic,
    }
    kind = values.get("kind")
    if kind not in kinds:
        raise ValueError(f"calibrator kind {kind!r} is not one of {', '.join(kinds)}")
    try:
        return kinds[kind].from_dict(values)
    except KeyError as error:
        raise ValueError(f"the {kind} calibrator lacks {error}") from None


def fit_temperature(
    confidences: ArrayLike, targets: ArrayLike, *, clip: float = 1e-3
) -> Temperature:
    """Return the temperature in [0.01, 100] of least cross-entropy (Guo 1706.04599).

    The loss is convex in 1/T, so its derivative is bisected. A limit is returned where the loss
    falls beyond it: 100 if confidence says nothing about the targets, or the opposite.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.
        clip: see :class:`Temperature`.

    Raises:
        ValueError: no values, different lengths, a value outside [0, 1], or a clip not in (0, ½).
    """
    if not 0 < clip < 0.5:
        raise ValueError(f"clip is {clip}, not in (0, 0.5)")
    scores, goals = check_pairs(confidences, targets)
    logits = _logit(scores, clip)
    low, high = 1 / _MAX_TEMPERATURE, 1 / _MIN_TEMPERATURE

    def derivative(inverse: float) -> float:
        return float(((_sigmoid(inverse * logits) - goals) * logits).sum())

    if derivative(low) >= 0:
        return Temperature(_MAX_TEMPERATURE, clip)
    if derivative(high) <= 0:
        return Temperature(_MIN_TEMPERATURE, clip)
    for _ in range(_MAX_ITERATIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) < 0 else (low, middle)
    return Temperature(2 / (low + high), clip)


def fit_platt(confidences: ArrayLike, targets: ArrayLike) -> Platt:
    """Return the Platt fit of least cross-entropy against smoothed targets (Platt 1999).

    With N₊ = Σ targets and N₋ = N − N₊, a target of 1 becomes (N₊+1)/(N₊+2), a target of 0 becomes
    1/(N₋+2), and a fraction lies between them in proportion; so the fit is finite even where
    confidence separates right from wrong.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.

    Raises:
        ValueError: no values, different lengths, or a value outside [0, 1].
    """
    scores, goals = check_pairs(confidences, targets)
    positives = float(goals.sum())
    high = (positives + 1) / (positives + 2)
    low = 1 / (len(goals) - positives + 2)
    smoothed = goals * high + (1 - goals) * low
    if np.ptp(scores) == 0:
        mean = float(smoothed.mean())
        return Platt(0.0, math.log(mean / (1 - mean)))
    intercept, slope = _fit_logistic(scores[:, None], smoothed, ridge=0.0)
    return Platt(float(slope), float(intercept))


def fit_isotonic(confidences: ArrayLike, targets: ArrayLike) -> Isotonic:
    """Return the isotonic fit by pooling adjacent violators; equal confidences are one point.

    Args:
        confidences: N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed.

    Raises:
        ValueError: no values, different lengths, or a value outside [0, 1].
    """
    scores, goals = check_pairs(confidences, targets)
    points, inverse = np.unique(scores, return_inverse=True)
    weights = np.bincount(inverse).astype(np.float64)
    sums = np.bincount(inverse, weights=goals)
    blocks: list[tuple[float, float, int]] = []  # target sum, weight, points
    for total, weight in zip(sums.tolist(), weights.tolist(), strict=True):
        block = (total, weight, 1)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    values = np.repeat([total / weight for total, weight, _ in blocks], [b[2] for b in blocks])
    # Inside a flat run only its two ends are knots.
    flat = np.zeros(len(values), dtype=np.bool_)
    flat[1:-1] = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return Isotonic(tuple(points[~flat].tolist()), tuple(np.clip(values[~flat], 0, 1).tolist()))


FITS: Mapping[str, Callable[[ArrayLike, ArrayLike], Calibrator]] = MappingProxyType(
    {"temperature": fit_temperature, "platt": fit_platt, "isotonic": fit_isotonic}
)
"""Calibrator kind to its fit."""


def calibrate_in_order(calibrator: Calibrator, confidences: ArrayLike) -> FloatArray:
    """Return calibrated confidences that keep the order of the given ones, ties included.

    A step function gives equal values to unequal confidences; they are set apart by at most 1e-9,
    so that ordering by the result equals ordering by what went in.

    Args:
        calibrator: a fitted calibrator.
        confidences: N confidences in [0, 1].

    Raises:
        ValueError: the calibrator reverses the order: higher confidence went with worse answers.
    """
    scores = _to_array(confidences)
    levels, places = np.unique(scores, return_inverse=True)
    values = np.asarray(calibrator(levels))
    if (np.diff(values) < -1e-12).any():
        raise ValueError("it reverses the order, because higher confidence went with worse answers")
    rank = np.arange(1, len(levels) + 1) / max(1, len(levels))
    values = np.maximum.accumulate(values)
    return np.asarray(((1 - _APART) * values + _APART * rank)[places])


def fit_combination(
    values: Mapping[str, ArrayLike], targets: ArrayLike, *, ridge: float = 1e-3
) -> LogisticCombination:
    """Return the logistic regression from named metrics to the targets.

    Minimises Σ cross-entropy + ridge/2·Σ w². The intercept is not penalised.

    Args:
        values: metric name to N confidences in [0, 1].
        targets: N targets in [0, 1], fractions allowed; they may not be all 0 or all 1.
        ridge: above 0, so that the fit is finite and metrics that move together share a weight.

    Raises:
        ValueError: no metric, different lengths, a value outside [0, 1], or one-sided targets.
    """
    if not values:
        raise ValueError("there is no metric to combine")
    if not (math.isfinite(ridge) and ridge > 0):
        raise ValueError(f"ridge is {ridge}, not a finite number above 0")
    columns = [check_pairs(column, targets)[0] for column in values.values()]
    goals = np.asarray(targets, dtype=np.float64)
    if not 0 < goals.mean() < 1:
        raise ValueError("targets are all 0 or all 1: there is nothing to fit")
    weights = _fit_logistic(np.stack(columns, axis=1), goals, ridge)
    coefficients = dict(zip(values, weights[1:].tolist(), strict=True))
    return LogisticCombination(float(weights[0]), coefficients)


def _fit_logistic(features: FloatArray, goals: FloatArray, ridge: float) -> FloatArray:
    """Return intercept and D weights of a logistic regression by damped Newton steps.

    Args:
        features: (N, D).
        goals: N fractions.
        ridge: penalty on the weights.
    """
    design = np.column_stack([np.ones(len(goals)), features])
    penalty = np.diag([0.0] + [ridge] * features.shape[1])

    def loss(weights: FloatArray) -> float:
        score = design @ weights
        return float(
            (np.logaddexp(0, score) - goals * score).sum() + weights @ penalty @ weights / 2
        )

    weights = np.zeros(design.shape[1])
    current = loss(weights)
    for _ in range(_MAX_ITERATIONS):
        chance = _sigmoid(design @ weights)
        gradient = design.T @ (chance - goals) + penalty @ weights
        if np.abs(gradient).max() <= _GRADIENT_TOLERANCE * len(goals):
            break
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        size = 1.0
        while loss(weights - size * step) > current and size > 1e-8:
            size /= 2
        weights = weights - size * step
        current = loss(weights)
    return weights


def _to_array(values: ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _logit(values: FloatArray, clip: float) -> FloatArray:
    inside = np.clip(values, clip, 1 - clip)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def _sigmoid(scores: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-np.logaddexp(0.0, -scores)))
