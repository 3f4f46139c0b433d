"""Rewards of many completions at once: what :func:`rewards.score` gives, computed on arrays.

A completion whose mentions compete for places in the text (copies of a name, overlaps) is scored
by the plain function; all others are sums over facts that are looked up once for each distinct
mention of an input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ccrl_cli.core.alignment import tokenize
from ccrl_cli.core.columns import (
    BoolArray,
    Chunk,
    Columns,
    FloatArray,
    IntArray,
    Votes,
    make_chunks,
)
from ccrl_cli.core.rewards import Mention, RewardWeights, Target, length_penalty, token_f1
from ccrl_cli.records import Parse

PARTS = ("overlap", "format", "length", "total")
"""Parts of a reward, as :func:`rewards.score` names them."""


def score_batch(
    samples: Sequence[Sequence[Parse]],
    targets: Sequence[Target],
    weights: RewardWeights,
    num_tokens: Sequence[Sequence[int]] | None = None,
    *,
    chunks: Sequence[Chunk] | None = None,
) -> dict[str, list[FloatArray]]:
    """Return the rewards of the completions of N inputs, and their parts.

    Args:
        samples: completions of each input; their number may differ from input to input.
        targets: N labels.
        weights: overlap, weights and length limits.
        num_tokens: sampled tokens of each completion, for the length penalty; None: none.
        chunks: what :func:`make_chunks` made of the samples, if that is known already.

    Returns:
        ``overlap``, ``format``, ``length`` and ``total``: for each input, an array over its
        completions.

    Raises:
        ValueError: the lengths differ.
    """
    if len(samples) != len(targets):
        raise ValueError(f"{len(samples)} inputs but {len(targets)} targets")
    found: dict[str, list[FloatArray]] = {part: [np.zeros(0)] * len(samples) for part in PARTS}
    for chunk in make_chunks(samples) if chunks is None else chunks:
        places = chunk.places
        work = _Inputs(chunk, [samples[p] for p in places], [targets[p] for p in places])
        overlap = _OVERLAPS[weights.overlap](work)
        form = work.format()
        length = np.zeros(overlap.shape)
        if num_tokens is not None:
            soft, limit = weights.length_soft_tokens, weights.length_limit_tokens
            rows = [[length_penalty(t, soft, limit) for t in num_tokens[p]] for p in places]
            length = np.array(rows, dtype=np.float64).reshape(overlap.shape)
        total = (
            weights.overlap_weight * overlap
            + weights.format_weight * form
            + weights.length_weight * length
        )
        for part, values in zip(PARTS, (overlap, form, length, total), strict=True):
            for place, row in zip(places, values, strict=True):
                found[part][place] = row
    return found


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the target and the text say of each distinct mention of an input (G of them).

    Attributes:
        ignored: abstained: counts on neither side.
        due: copies in the label.
        fits: copies of its surface text that the text has places for.
        start: first token of the place that a single copy takes; -1 without a place.
        end: token after it.
        shared: tokens of that place that the label holds under the same type.
        stated: tokens that a copy states.
        vote: vote share, for ``expected_f1``.
        hard: its number of tokens depends on how it is written.
    """

    ignored: BoolArray
    due: IntArray
    fits: IntArray
    start: IntArray
    end: IntArray
    shared: IntArray
    stated: IntArray
    vote: FloatArray
    hard: BoolArray


class _Inputs:
    """Inputs with equally many completions, and their targets."""

    def __init__(
        self, chunk: Chunk, samples: Sequence[Sequence[Parse]], targets: Sequence[Target]
    ) -> None:
        self.columns, self.samples, self.targets = chunk.columns, samples, targets
        self.votes: Votes = chunk.votes
        self.facts = _look_up(self.columns, self.votes, targets)
        self.size_n = np.array([target.size for target in targets], dtype=np.int64)
        kept = ~self.facts.ignored[self.votes.vote_d]
        self.row = self.columns.row_d[kept]
        self.vote = self.votes.vote_d[kept]
        self.copies = self.columns.copies_d[kept]

    def _sum(self, values: IntArray | FloatArray) -> FloatArray:
        """Return sums over the mentions of each completion that count: (N, K)."""
        sums = np.bincount(self.row, weights=values, minlength=self.columns.valid_nk.size)
        return sums.reshape(self.columns.shape).astype(np.float64)

    def _f1(self, shared: FloatArray, total: FloatArray) -> FloatArray:
        """Return 2·shared/total, 1 where total is 0, and 0 for invalid completions."""
        ratio = np.where(total > 0, 2 * shared / np.where(total > 0, total, 1.0), 1.0)
        return np.asarray(np.where(self.columns.valid_nk, ratio, 0.0))

    def entity_f1(self) -> FloatArray:
        """Return ``entity_f1`` of each completion."""
        shared = self._sum(np.minimum(self.copies, self.facts.due[self.vote]))
        return self._f1(shared, self._sum(self.copies) + self.size_n[:, None])

    def exact(self) -> FloatArray:
        """Return ``exact`` of each completion."""
        shared = self._sum(np.minimum(self.copies, self.facts.due[self.vote]))
        size = self.size_n[:, None]
        right = (self._sum(self.copies) == size) & (shared == size) & self.columns.valid_nk
        return np.asarray(right, dtype=np.float64)

    def expected_f1(self) -> FloatArray:
        """Return ``expected_f1`` of each completion."""
        spare = np.maximum(0, self.facts.fits[self.vote] - 1)
        stated = self._sum(np.maximum(1, self.copies - spare))
        votes = np.array([sum(target.votes.values()) for target in self.targets])
        value = self._f1(self._sum(self.facts.vote[self.vote]), stated + votes[:, None])
        empty = (self.size_n == 0).astype(np.float64)[:, None] * self.columns.valid_nk
        return np.asarray(np.where(stated > 0, value, empty))

    def token_f1(self) -> FloatArray:
        """Return ``token_f1`` of each completion."""
        facts, vote = self.facts, self.vote
        stated = self._sum(facts.stated[vote] * self.copies)
        shared = self._sum(facts.shared[vote])
        due = np.array([target.num_label_tokens for target in self.targets], dtype=np.float64)
        value = self._f1(shared, stated + due[:, None])
        hard = self._contested() & self.columns.valid_nk
        for n, k in np.argwhere(hard).tolist():
            value[n, k] = token_f1(self.samples[n][k], self.targets[n])
        return value

    def _contested(self) -> BoolArray:
        """Return which completions have mentions that compete for places in the text."""
        facts, vote, row = self.facts, self.vote, self.row
        placed = facts.start[vote] >= 0
        hard = facts.hard[vote] | (placed & (self.copies > 1))
        marked = np.zeros(self.columns.valid_nk.size, dtype=np.bool_)
        marked[row[hard]] = True
        row, start, end = row[placed], facts.start[vote][placed], facts.end[vote][placed]
        order = np.lexsort((start, row))
        row, start, end = row[order], start[order], end[order]
        marked[row[1:][(row[1:] == row[:-1]) & (start[1:] < end[:-1])]] = True
        return marked.reshape(self.columns.shape)

    def format(self) -> FloatArray:
        """Return ``format`` of each completion; abstained mentions count here."""
        columns = self.columns
        row, copies, fits = self._surfaces()
        surplus = np.maximum(0, copies - fits)
        size = columns.valid_nk.size
        unsound = np.bincount(row, weights=surplus, minlength=size)
        stated = np.bincount(columns.row_d, weights=columns.copies_d, minlength=size)
        flat = [parse for parses in self.samples for parse in parses]
        unsound += np.fromiter((parse.num_unknown_types for parse in flat), np.int64, size)
        bases = {"valid": 1.0, "repaired": 0.5, "invalid": 0.0}
        base = np.fromiter((bases[parse.outcome] for parse in flat), np.float64, size)
        sound = 1.0 - np.minimum(stated, unsound) / np.maximum(stated, 1)
        nothing_due = np.repeat(self.size_n == 0, columns.shape[1])
        return (base * np.where(stated > 0, sound, nothing_due)).reshape(columns.shape)

    def _surfaces(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return completion, copies over all types, and places of each surface text it states."""
        columns, fits = self.columns, self.facts.fits[self.votes.vote_d]
        surfaces: dict[str, int] = {}
        number = np.array(
            [surfaces.setdefault(key, len(surfaces)) for key, _ in columns.mentions],
            dtype=np.int64,
        )
        # Only a surface that occurs under several types can have copies to be added up.
        several = (np.bincount(number, minlength=len(surfaces)) > 1)[number][columns.mention_d]
        row, copies = columns.row_d, columns.copies_d
        key = row[several] * max(1, len(surfaces)) + number[columns.mention_d[several]]
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        added = np.bincount(inverse, weights=copies[several], minlength=len(first))
        alone = ~several
        return (
            np.concatenate([row[alone], row[several][first]]),
            np.concatenate([copies[alone], added.astype(np.int64)]),
            np.concatenate([fits[alone], fits[several][first]]),
        )


def _look_up(columns: Columns, votes: Votes, targets: Sequence[Target]) -> _Facts:
    """Look each distinct mention of each input up in its target and text."""
    bounds = np.searchsorted(votes.input_g, np.arange(len(targets) + 1)).tolist()
    mentions = [columns.mentions[number] for number in votes.mention_g.tolist()]
    surfaces = [columns.spellings[number].text for number in votes.spelling_g.tolist()]
    rows: list[tuple[int, int, int, int, int, int]] = []
    ignored, vote = np.zeros(len(mentions), dtype=np.bool_), np.zeros(len(mentions))
    for target, low, high in zip(targets, bounds, bounds[1:], strict=False):
        rows += _look_up_input(target, mentions[low:high], surfaces[low:high])
        if target.abstained:
            ignored[low:high] = [mention in target.abstained for mention in mentions[low:high]]
        vote[low:high] = [target.votes.get(mention, 0.0) for mention in mentions[low:high]]
    due, fits, start, end, shared, stated = (
        np.array(column, dtype=np.int64)
        for column in (zip(*rows, strict=True) if rows else [()] * 6)
    )
    variants = np.bincount(columns.mention_of, minlength=len(columns.mentions))
    hard = (variants[votes.mention_g] > 1) & (start < 0)
    return _Facts(ignored, due, fits, start, end, shared, stated, vote, hard)


def _look_up_input(
    target: Target, mentions: Sequence[Mention], surfaces: Sequence[str]
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield due, fits, start, end, shared and stated of each mention, see :class:`_Facts`."""
    by_type = _label_masks(target)
    due_of, places_of = target.places.get, target.aligner.places
    for mention, surface in zip(mentions, surfaces, strict=True):
        places = places_of(mention[0])
        if not places:
            yield 0, 0, -1, -1, 0, max(1, len(tokenize(surface)[0]))
            continue
        fits = 1 if len(places) == 1 else target.aligner.count(mention[0])
        start, end, mask = places[0]
        due = due_of(mention)
        if due is not None:
            mask = due[0]
            start, end = (mask & -mask).bit_length() - 1, mask.bit_length()
        shared = (mask & by_type.get(mention[1], 0)).bit_count()
        yield 0 if due is None else len(due), fits, start, end, shared, end - start


def _label_masks(target: Target) -> dict[str, int]:
    """Return the tokens that the label holds, by type."""
    by_type: dict[str, int] = {}
    for (_, kind), masks in target.places.items():
        for mask in masks:
            by_type[kind] = by_type.get(kind, 0) | mask
    return by_type


_OVERLAPS: Mapping[str, Callable[[_Inputs], FloatArray]] = {
    "token_f1": _Inputs.token_f1,
    "entity_f1": _Inputs.entity_f1,
    "exact": _Inputs.exact,
    "expected_f1": _Inputs.expected_f1,
}
