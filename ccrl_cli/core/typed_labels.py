"""What follows from a label whose types come from type scores: how sure its entities are."""

from __future__ import annotations

from dataclasses import replace

from ccrl_cli.core.agreement import PosteriorOf
from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.records import PseudoLabel


def entity_confidence(label: PseudoLabel, posterior_of: PosteriorOf) -> tuple[float, ...]:
    """Return how sure each entity of a label is: vote share of the span x posterior of its type.

    Where votes are for spans, the product is the probability that the span is one and that its
    type is right, if the two err apart. Without a posterior it is the vote share.

    Args:
        label: a label with its votes.
        posterior_of: type evidence of its input; may be empty.

    Returns:
        Values in [0, 1], one an entity, in the order of the label.
    """
    shares = {(mention_key(entity.text), entity.type): share for entity, share in label.votes}
    keys = [(mention_key(entity.text), entity.type) for entity in label.entities]
    return tuple(shares.get(key, 0.0) * posterior_of.get(key, 1.0) for key in keys)


def in_text(label: PseudoLabel, aligner: Aligner) -> PseudoLabel:
    """Return a label without the mentions, or copies of one, that the text has no place for."""
    places = aligner.place([mention_key(entity.text) for entity in label.entities])
    if all(place is not None for place in places):
        return label
    kept = zip(label.entities, places, strict=True)
    return replace(label, entities=tuple(entity for entity, place in kept if place is not None))
