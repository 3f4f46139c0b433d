"""The guard of the dynamic curriculum: what a new estimate may change in a label.

Agreement grows by training alone, so a single estimate changes nothing by itself: shares of votes
must have moved one way at each of w refreshes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise

from ccrl_cli.core.agreement import canonical
from ccrl_cli.records import Entity

Mention = tuple[str, str]
Shares = Mapping[Mention, float]
"""Vote share by (normalised text, type)."""


def guarded(
    current: tuple[Entity, ...],
    proposed: tuple[Entity, ...],
    tables: Sequence[Shares],
    *,
    whole: bool,
    spans: Collection[str] = (),
) -> tuple[Entity, ...]:
    """Return the label that the guard allows; the proposed one if nothing holds it back.

    Every entity is judged alone, and a span whose type is chosen for it changes type at once or not
    at all.

    Args:
        current: the label as it is.
        proposed: the label as it is estimated.
        tables: shares of the last w + 1 estimates, oldest first.
        whole: an answer is taken as a whole or not at all.
        spans: spans (normalised text) whose types are chosen by evidence.
    """
    held, wanted = set(canonical(current)), set(canonical(proposed))
    gained, lost = wanted - held, held - wanted
    enters = {e for e in gained if _moved(_over_time(e, tables))}
    leaves = {e for e in lost if _moved([1.0 - share for share in _over_time(e, tables)])}
    for old, new in _retyped(lost, gained, spans):
        if _preferred(new, old, tables):
            enters.add(new)
            leaves.add(old)
        else:
            enters.discard(new)
            leaves.discard(old)
    if (enters, leaves) == (gained, lost):
        return proposed if gained or lost else current
    if whole:
        return current
    kept = tuple(e for e in current if canonical([e])[0] not in leaves)
    return kept + tuple(e for e in proposed if canonical([e])[0] in enters)


def _retyped(
    lost: Collection[Entity], gained: Collection[Entity], spans: Collection[str]
) -> Iterator[tuple[Entity, Entity]]:
    """Yield the two mentions of each span that goes from one chosen type to another."""
    for old in lost:
        for new in gained:
            if new.text == old.text and new.text in spans:
                yield old, new


def _over_time(mention: Entity, tables: Sequence[Shares]) -> list[float]:
    return [table.get((mention.text, mention.type), 0.0) for table in tables]


def _preferred(new: Entity, old: Entity, tables: Sequence[Shares]) -> bool:
    """Return whether a span was called by its new type more often at each of w refreshes."""
    pairs = zip(_over_time(new, tables), _over_time(old, tables), strict=True)
    return all(now > before for now, before in list(pairs)[1:])


def _moved(shares: Sequence[float]) -> bool:
    """Return whether a share rose at each of w refreshes; one that has reached 1 may stay there."""
    return shares[-1] > shares[0] and all(b > a or b == 1.0 for a, b in pairwise(shares))
