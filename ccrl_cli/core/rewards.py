"""Rewards of one answer against a pseudo-label: overlap, format and length.

The target is what the text can carry: label mentions that are not in the text (a pseudo-label is
a model's own answer) or that overlap one another are no target, since predicting them would be a
hallucinated mention. "The label" below means these placed mentions; a label of which none can be
placed is an empty label. No answer scores above the one that writes exactly the label, with one
exception: ``expected_f1`` has its best answer at the highest votes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ccrl_cli.core.alignment import Aligner, Mention, mention_key, mention_of, tokenize
from ccrl_cli.records import Entity, Parse


@dataclass(frozen=True, slots=True)
class Target:
    """The label of one input, prepared once for all answers to it; made by :func:`make_target`.

    Attributes:
        aligner: index of the text.
        places: label mention to the token masks it takes; as many as the label has copies.
        size: label mentions, copies included.
        num_label_tokens: tokens inside label mentions.
        tokens_of: by type, the mask of the tokens inside label mentions.
        abstained: mentions that are removed from both sides.
        votes: mention of the text to its vote share in [0, 1].
        closed: surface keys that are removed from both sides under every type, because the label
            has a mention there that is not open yet.
    """

    aligner: Aligner
    places: Mapping[Mention, tuple[int, ...]]
    size: int
    num_label_tokens: int
    tokens_of: Mapping[str, int]
    abstained: frozenset[Mention]
    votes: Mapping[Mention, float]
    closed: frozenset[str] = frozenset()

    def ignores(self, mention: Mention) -> bool:
        """Return whether a mention counts neither for nor against."""
        return mention in self.abstained or mention[0] in self.closed


@dataclass(frozen=True, slots=True)
class RewardWeights:
    """Which overlap is used, and how the parts are summed.

    Attributes:
        overlap: name of the overlap, a key of ``OVERLAPS``.
        overlap_weight: weight of the overlap, a part in [0, 1].
        format_weight: weight of the format, a part in [0, 1].
        length_weight: weight of the length penalty, a part in [-1, 0].
        length_soft_tokens: tokens up to which an answer has no length penalty.
        length_limit_tokens: tokens from which the penalty is full.

    Raises:
        ValueError: the overlap is unknown, a weight is negative or not finite, or the limits are
            not in order.
    """

    overlap: str = "token_f1"
    overlap_weight: float = 1.0
    format_weight: float = 0.2
    length_weight: float = 0.0
    length_soft_tokens: int = 128
    length_limit_tokens: int = 256

    def __post_init__(self) -> None:
        if self.overlap not in OVERLAPS:
            raise ValueError(f"overlap {self.overlap!r} is not one of {', '.join(OVERLAPS)}")
        for name in ("overlap_weight", "format_weight", "length_weight"):
            weight = getattr(self, name)
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} is {weight}, not a finite number of at least 0")
        length_penalty(0, self.length_soft_tokens, self.length_limit_tokens)

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest possible total."""
        return -self.length_weight, self.overlap_weight + self.format_weight


def make_target(
    aligner: Aligner,
    entities: Iterable[Entity],
    abstained: Iterable[Entity] = (),
    votes: Iterable[tuple[Entity, float]] | None = None,
    closed: Iterable[Entity] = (),
) -> Target:
    """Prepare a label for scoring.

    Args:
        aligner: index of the input.
        entities: label mentions, in any order.
        abstained: mentions that count neither for nor against.
        votes: mentions with the share of completions that hold them, for ``expected_f1``; None
            gives each label mention the vote 1. Mentions that are not in the text are left out.
        closed: mentions of the label that are not open yet: their surface counts neither for nor
            against, whatever its type, unless `entities` has it too.

    Raises:
        ValueError: a vote is not in [0, 1].
    """
    ignored = frozenset(mention_of(entity) for entity in abstained)
    label = sorted(mention for mention in map(mention_of, entities) if mention not in ignored)
    hidden = {mention_key(entity.text) for entity in closed} - {key for key, _ in label}
    places: dict[Mention, list[int]] = {}
    for mention, place in zip(label, aligner.place([key for key, _ in label]), strict=True):
        if place is not None:
            places.setdefault(mention, []).append(place[2])
    shares: dict[Mention, float] = {} if votes is not None else dict.fromkeys(places, 1.0)
    for entity, share in votes or ():
        if not 0 <= share <= 1:
            raise ValueError(f"vote {share} of {entity} is not in [0, 1]")
        mention = mention_of(entity)
        if (
            share
            and mention not in ignored
            and mention[0] not in hidden
            and aligner.places(mention[0])
        ):
            shares[mention] = max(share, shares.get(mention, 0.0))
    tokens_of: dict[str, int] = {}
    for (_, kind), masks in places.items():
        for mask in masks:
            tokens_of[kind] = tokens_of.get(kind, 0) | mask
    return Target(
        aligner=aligner,
        places={mention: tuple(masks) for mention, masks in places.items()},
        size=sum(map(len, places.values())),
        num_label_tokens=sum(mask.bit_count() for masks in places.values() for mask in masks),
        tokens_of=tokens_of,
        abstained=ignored,
        votes=shares,
        closed=frozenset(hidden),
    )


def token_f1(parse: Parse, target: Target) -> float:
    """Return the F1 of typed tokens, in [0, 1]: partial credit for a part of a mention.

    Both sides are sets of (token, type). A mention that the label has too takes the label's place,
    so the order of an answer does not matter; the others are placed longest first on free tokens.
    What cannot be placed adds its own number of tokens to the predicted side, so it costs as much
    as if the text held it. F1(nothing, nothing) = 1; an invalid answer gets 0. Boundaries between
    neighbours of one type are not seen: use :func:`entity_f1` for these.
    """
    if parse.outcome == "invalid":
        return 0.0
    shared = used = 0
    others: list[tuple[str, str, str]] = []
    taken: dict[Mention, int] = {}
    for entity in parse.entities:
        mention = mention_of(entity)
        if target.ignores(mention):
            continue
        masks = target.places.get(mention, ())
        number = taken.get(mention, 0)
        if number < len(masks):
            taken[mention] = number + 1
            used |= masks[number]
            shared += masks[number].bit_count()
        else:
            others.append((*mention, entity.text))
    num_predicted = shared
    if others:
        others.sort()
        overlapping, stated = _place_others(others, used, target)
        shared, num_predicted = shared + overlapping, num_predicted + stated
    total = num_predicted + target.num_label_tokens
    return 2 * shared / total if total else 1.0


def _place_others(others: list[tuple[str, str, str]], used: int, target: Target) -> tuple[int, int]:
    """Return typed tokens shared with the label, and tokens stated, of mentions not in the label.

    Args:
        others: sorted (key, type, surface text).
        used: token mask that is taken.
        target: the label.
    """
    shared = stated = 0
    places = target.aligner.place([key for key, _, _ in others], used)
    lengths: dict[str, int] = {}
    for (key, kind, surface), place in zip(others, places, strict=True):
        if place is not None:
            stated += place[1] - place[0]
            shared += (place[2] & target.tokens_of.get(kind, 0)).bit_count()
            continue
        if key not in lengths:
            lengths[key] = max(1, len(tokenize(surface)[0]))
        stated += lengths[key]
    return shared, stated


def entity_f1(parse: Parse, target: Target) -> float:
    """Return the F1 of mentions by text and type as multisets, in [0, 1].

    Hallucinated mentions and copies beyond the label's are false positives. F1(nothing, nothing)
    = 1; an invalid answer gets 0.
    """
    if parse.outcome == "invalid":
        return 0.0
    stated = _count(parse, target)
    shared = _num_shared(stated, target)
    total = sum(stated.values()) + target.size
    return 2 * shared / total if total else 1.0


def exact(parse: Parse, target: Target) -> float:
    """Return 1 if the mentions equal the label's as multisets, else 0; invalid gets 0."""
    if parse.outcome == "invalid":
        return 0.0
    stated = _count(parse, target)
    return float(sum(stated.values()) == target.size == _num_shared(stated, target))


def expected_f1(parse: Parse, target: Target) -> float:
    """Return 2·Σ v_e over predicted / (|predicted| + Σ v_e), in [0, 1]: F1 against the votes.

    Each mention earns its vote once. A copy counts as one more prediction when the text does not
    have that many places for it. The empty answer gets 1 if the label is empty, else 0: the
    formula alone would give it 0 against any stray vote, and teach a model to invent mentions.
    The best answer is the set of mentions with the highest votes, which need not be the label.
    An invalid answer gets 0.
    """
    if parse.outcome == "invalid":
        return 0.0
    stated = _count(parse, target)
    if not stated:
        return float(target.size == 0)
    earned = sum(target.votes.get(mention, 0.0) for mention in stated)
    size = 0
    for (key, _), copies in stated.items():
        size += max(1, copies - max(0, target.aligner.count(key) - 1))
    total = size + sum(target.votes.values())
    return 2 * earned / total


def format_reward(parse: Parse, target: Target) -> float:
    """Return how well-formed an answer is, in [0, 1]: outcome times share of sound mentions.

    1 valid, 0.5 repaired, 0 invalid. Unsound is a mention of unknown type, one that the text does
    not hold, and every copy of a surface text, over all its types, beyond its places in the text.
    Whether the label is right plays no part, with one exception: an empty list against a label
    that is not empty, open or not, gets 0. Otherwise the empty list, which can have no unsound
    mention, would be the safe answer: as it is, its total is 0 before the length penalty, no more
    than any answer, and less than a well-formed wrong one.
    """
    if parse.outcome == "invalid":
        return 0.0
    base = 1.0 if parse.outcome == "valid" else 0.5
    if not parse.entities:
        return 0.0 if target.size or target.closed else base
    copies: dict[str, int] = {}
    for entity in parse.entities:
        key = mention_key(entity.text)
        copies[key] = copies.get(key, 0) + 1
    surplus = 0
    for key, number in copies.items():
        if number > 1 or not target.aligner.places(key):
            surplus += max(0, number - target.aligner.count(key))
    unsound = min(len(parse.entities), surplus + parse.num_unknown_types)
    return base * (1.0 - unsound / len(parse.entities))


def length_penalty(num_tokens: int, soft_tokens: int, limit_tokens: int) -> float:
    """Return the soft overlong punishment, in [-1, 0] (DAPO, 2503.14476, eq. 13).

    0 up to ``soft_tokens``, -1 from ``limit_tokens``, a straight line between.

    Raises:
        ValueError: not ``0 <= soft_tokens < limit_tokens``.
    """
    if not 0 <= soft_tokens < limit_tokens:
        raise ValueError(f"length limits {soft_tokens} and {limit_tokens} are not in order")
    if num_tokens <= soft_tokens:
        return 0.0
    return -min(1.0, (num_tokens - soft_tokens) / (limit_tokens - soft_tokens))


def score(
    parse: Parse, target: Target, weights: RewardWeights, *, num_tokens: int = 0
) -> dict[str, float]:
    """Return the reward of one answer and its parts.

    Args:
        parse: what the answer says.
        target: the label.
        weights: overlap, weights and length limits.
        num_tokens: sampled tokens of the answer, for the length penalty.

    Returns:
        ``overlap`` and ``format`` in [0, 1], ``length`` in [-1, 0], all unweighted, and ``total``,
        their weighted sum, inside ``weights.range``.
    """
    overlap = OVERLAPS[weights.overlap](parse, target)
    form = format_reward(parse, target)
    length = length_penalty(num_tokens, weights.length_soft_tokens, weights.length_limit_tokens)
    total = (
        weights.overlap_weight * overlap
        + weights.format_weight * form
        + weights.length_weight * length
    )
    return {"overlap": overlap, "format": form, "length": length, "total": total}


def _count(parse: Parse, target: Target) -> Counter[Mention]:
    """Return the stated mentions with their copies, abstained ones removed."""
    mentions = map(mention_of, parse.entities)
    return Counter(mention for mention in mentions if not target.ignores(mention))


def _num_shared(stated: Mapping[Mention, int], target: Target) -> int:
    return sum(
        min(copies, len(target.places.get(mention, ()))) for mention, copies in stated.items()
    )


OVERLAPS: Mapping[str, Callable[[Parse, Target], float]] = MappingProxyType(
    {"token_f1": token_f1, "entity_f1": entity_f1, "exact": exact, "expected_f1": expected_f1}
)
