"""A curriculum of entities: every sentence from the first step, and targets that grow.

The unit is a mention of a label, with its own score. Within each type mentions are sorted by score;
an open share c opens the first c of every type, so the mix of types is that of all labels at every
stage (class-balanced self-training, Zou et al. 1810.07911). Open mentions count for, mentions that
are surely wrong count against, and those between, closed ones among them, abstain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_cli.core.alignment import Aligner
from ccrl_cli.core.curriculum import ORDERS, Schedule
from ccrl_cli.core.rewards import Target, make_target
from ccrl_cli.records import Entity, PseudoLabel

Kind = str | None
"""A type, or None: a label without entities, which opens as one unit of a kind of its own."""


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """A label with the scores that its mentions are opened by.

    Attributes:
        aligner: index of the text.
        label: the label with everything open.
        scores: of each of its entities, in their order.
        votes: read by ``expected_f1``; None for other overlaps.
    """

    aligner: Aligner
    label: PseudoLabel
    scores: tuple[float, ...]
    votes: tuple[tuple[Entity, float], ...] | None = None

    @property
    def units(self) -> tuple[tuple[Kind, float], ...]:
        """Kind and score of each unit: the entities, or the empty label."""
        entities = self.label.entities
        if not entities:
            return ((None, self.label.confidence),)
        return tuple((e.type, s) for e, s in zip(entities, self.scores, strict=True))


class EntityCurriculum:
    """Says what the target of an input is at a step.

    What is open follows from scores and step alone, so a resume has nothing to restore.

    Args:
        labels: by input id; those that are trained on.
        schedule: open share by step, over all mentions.
        order: ``confidence`` (surest first), ``anti`` or ``random``.
        rng: needed by ``random`` alone.

    Raises:
        ValueError: the order is unknown, or ``random`` was given no generator.
    """

    def __init__(
        self,
        labels: Mapping[str, ScoredLabel],
        schedule: Schedule,
        order: str = "confidence",
        rng: np.random.Generator | None = None,
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f"order is {order!r}, not one of {', '.join(ORDERS)}")
        if order == "random" and rng is None:
            raise ValueError("random order needs a generator")
        self._labels = labels
        self.schedule = schedule
        self._places, self._sizes = _places(labels, order, rng)
        self._targets: dict[tuple[str, tuple[bool, ...]], Target] = {}

    def units(self, input_id: str) -> tuple[tuple[Kind, float], ...]:
        """Return kind and score of each mention of a label; of an empty one a single unit."""
        return self._labels[input_id].units

    def kinds(self, input_id: str) -> list[Kind]:
        """Return the kinds of the units of a label."""
        return [kind for kind, _ in self._labels[input_id].units]

    def is_open(self, input_id: str, step: int) -> tuple[bool, ...]:
        """Return which mentions of a label are open at a generation step; of an empty label one."""
        kinds = self.kinds(input_id)
        pacing, t = self.schedule.pacing, self.schedule.progress(step)
        return tuple(
            place < pacing.num_open(t, self._sizes[kind])
            for kind, place in zip(kinds, self._places[input_id], strict=True)
        )

    def num_open(self, step: int) -> int:
        """Return how many units are open at a generation step."""
        pacing, t = self.schedule.pacing, self.schedule.progress(step)
        return sum(pacing.num_open(t, size) for size in self._sizes.values())

    def target(self, input_id: str, step: int) -> Target:
        """Return the label of an input at a generation step."""
        opened = self.is_open(input_id, step)
        known = self._targets.get((input_id, opened))
        if known is None:
            known = self._targets[input_id, opened] = self._make(input_id, opened)
        return known

    def weight(self, input_id: str, step: int) -> float:
        """Return 0 for an empty label that is not open yet, which says nothing; else 1."""
        empty = not self._labels[input_id].label.entities
        return float(not empty or self.is_open(input_id, step)[0])

    def _make(self, input_id: str, opened: tuple[bool, ...]) -> Target:
        item = self._labels[input_id]
        entities = item.label.entities
        if not entities:
            return make_target(item.aligner, (), item.label.abstained, item.votes)
        pairs = list(zip(entities, opened, strict=True))
        shown = [entity for entity, is_open in pairs if is_open]
        closed = [entity for entity, is_open in pairs if not is_open]
        return make_target(item.aligner, shown, item.label.abstained, item.votes, closed=closed)


def _places(
    labels: Mapping[str, ScoredLabel], order: str, rng: np.random.Generator | None
) -> tuple[dict[str, list[int]], dict[Kind, int]]:
    """Return the place of each unit among those of its kind, and how many each kind has."""
    by_kind: dict[Kind, list[tuple[str, int, float]]] = {}
    for input_id in sorted(labels):
        for number, (kind, score) in enumerate(labels[input_id].units):
            by_kind.setdefault(kind, []).append((input_id, number, score))
    places = {input_id: [0] * len(item.units) for input_id, item in labels.items()}
    for kind in sorted(by_kind, key=str):
        units: Sequence[tuple[str, int, float]] = by_kind[kind]
        if order == "random":
            assert rng is not None
            units = [units[place] for place in rng.permutation(len(units))]
        else:
            sign = 1 if order == "anti" else -1
            units = sorted(units, key=lambda unit: sign * unit[2])
        for place, (input_id, number, _) in enumerate(units):
            places[input_id][number] = place
    return places, {kind: len(units) for kind, units in by_kind.items()}
