"""The mix of types that is open: ranks that keep it even, and how far it is from that of all.

Ordered by a plain confidence, the first labels hold the types that are easy to be sure of, or
nothing at all. A policy that trains on them first learns to say little else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

EMPTY = None
"""The kind of a label without entities, beside the types."""

Kind = str | None


def balanced_ranks(
    entities: Mapping[str, Sequence[tuple[str, float]]], confidence: Mapping[str, float]
) -> dict[str, float]:
    """Return how sure each label is among labels of its types: a mean percentile, in (0, 1).

    Class-balanced self-training (Zou et al., 1810.07911) for labels of several entities.

    Args:
        entities: for each input, type and entity_confidence of the entities of its label.
        confidence: for each input; what labels without an entity are ranked by, among themselves.
    """
    rated: dict[str, Sequence[tuple[Kind, float]]] = {
        key: pairs or ((EMPTY, confidence[key]),) for key, pairs in entities.items()
    }
    values: dict[Kind, list[float]] = {}
    for kind, sure in (pair for pairs in rated.values() for pair in pairs):
        values.setdefault(kind, []).append(sure)
    known = {kind: np.sort(found) for kind, found in values.items()}

    def percentile(kind: Kind, sure: float) -> float:
        """Return the share below, equal ones counted as half."""
        found = known[kind]
        left, right = np.searchsorted(found, sure, "left"), np.searchsorted(found, sure, "right")
        return float(left + right) / (2 * len(found))

    return {
        key: sum(percentile(*pair) for pair in pairs) / len(pairs) for key, pairs in rated.items()
    }


def label_kinds(types: Sequence[str]) -> Sequence[Kind]:
    """Return what a label counts as: the types of its entities, or EMPTY."""
    return types or (EMPTY,)


def mix(labels: Sequence[Sequence[Kind]]) -> dict[Kind, float]:
    """Return the share of each kind among all that the labels hold."""
    counts = Counter(kind for kinds in labels for kind in kinds)
    total = counts.total()
    return {kind: count / total for kind, count in counts.items()}


def skews(labels: Sequence[Sequence[Kind]], sizes: Sequence[int]) -> list[float]:
    """Return how far the mix of the first labels is from that of all: total variation, in [0, 1].

    It is the share of what the first hold that would have to be of another kind.

    Args:
        labels: kinds of each label (:func:`label_kinds`), first to open first.
        sizes: how many are open; each at least 1.
    """
    names = sorted({kind for kinds in labels for kind in kinds}, key=str)
    column = {kind: place for place, kind in enumerate(names)}
    table = np.zeros((len(labels), len(names)))
    for row, kinds in enumerate(labels):
        for kind in kinds:
            table[row, column[kind]] += 1
    sums = table.cumsum(axis=0)
    shares = sums / sums.sum(axis=1, keepdims=True)
    return [float(np.abs(shares[size - 1] - shares[-1]).sum() / 2) for size in sizes]
