"""Labels whose types are given by type scores: spans by votes, the type of each by evidence.

The same few steps make the labels of a run and the answers of a policy: K answers with their type
scores go in, entities come out, each with how sure it is. One greedy answer is K = 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ccrl_cli.core.agreement import Labeller, PosteriorOf
from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.core.type_evidence import SpanScore, chosen_types, posteriors, with_types
from ccrl_cli.records import Parse, PseudoLabel


def typed_label(
    labeller: Labeller,
    input_id: str,
    parses: Sequence[Parse],
    mean_logprobs: Sequence[float | None],
    scores: Sequence[SpanScore],
    prior: Sequence[float],
    types: Sequence[str],
) -> tuple[PseudoLabel, tuple[float, ...]]:
    """Return the label of one input, its types by evidence, and how sure each entity is.

    Args:
        labeller: how spans and the label's confidence are taken from completions.
        input_id: identifier of the input.
        parses: K completions, K at least 1.
        mean_logprobs: K mean token log-probabilities in nats, None where unknown.
        scores: scored spans of the input, every span that its completions name.
        prior: (T,) what is taken off the scores, in nats.
        types: T type identifiers, in the order of the scores.

    Raises:
        ValueError: as the labeller and ``type_posterior`` do.
    """
    typed = with_types(parses, chosen_types(scores, prior, types))
    sure = posteriors(scores, prior, types, typed)
    label = labeller(input_id, typed, mean_logprobs, sure)
    return label, entity_confidence(label, sure)


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
