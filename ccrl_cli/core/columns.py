"""N x K parsed completions as arrays: what clustering, votes and rewards of whole stores run on.

Axis letters: N inputs, K completions, M mentions written, D distinct mentions of a completion,
G distinct mentions of an input. Every array over M, D or G is sorted by input.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ccrl_cli.core.alignment import mention_key
from ccrl_cli.records import Entity, Parse

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

CHUNK = 4096
"""Inputs that are turned into arrays together."""

_PAIRS_PER_CHUNK = 4_000_000


class _Numbers(dict[Hashable, int]):
    """Numbers things in the order in which they are first asked for."""

    def __missing__(self, key: Hashable) -> int:
        number = self[key] = len(self)
        return number


@dataclass(frozen=True, slots=True)
class Columns:
    """What N x K completions say.

    Attributes:
        shape: N and K.
        valid_nk: False for an invalid completion; it has no mentions here.
        spellings: distinct (text, type) as written.
        mentions: distinct (normalised text, type).
        mention_of: number of its mention, for each spelling.
        row_m: completion n·K + k of each mention written, ascending.
        spelling_m: number of its spelling.
        place_m: its place in its answer, from 0.
        row_d: completion of each distinct mention, ascending.
        mention_d: number of the mention.
        copies_d: how often the completion writes it.
        place_d: place of the first copy.
    """

    shape: tuple[int, int]
    valid_nk: BoolArray
    spellings: tuple[Entity, ...]
    mentions: tuple[tuple[str, str], ...]
    mention_of: IntArray
    row_m: IntArray
    spelling_m: IntArray
    place_m: IntArray
    row_d: IntArray
    mention_d: IntArray
    copies_d: IntArray
    place_d: IntArray


@dataclass(frozen=True, slots=True)
class Votes:
    """Votes of N inputs: the G distinct mentions of each, in no order inside an input.

    Attributes:
        input_g: input n of each vote, ascending.
        mention_g: number of the mention.
        spelling_g: number of its most frequent spelling, ties by code point.
        count_g: completions that hold it.
        share_g: the same as a share of K.
        copies_g: lower median of its copies in the completions that hold it.
        place_g: its mean place in them.
        vote_d: position in these arrays of each distinct mention of a completion.
    """

    input_g: IntArray
    mention_g: IntArray
    spelling_g: IntArray
    count_g: IntArray
    share_g: FloatArray
    copies_g: IntArray
    place_g: FloatArray
    vote_d: IntArray


def make_columns(samples: Sequence[Sequence[Parse]]) -> Columns:
    """Return N x K completions as arrays.

    Args:
        samples: K completions for each of N inputs; K is the same for all and at least 1.

    Raises:
        ValueError: inputs have different numbers of completions, or none.
    """
    count = len(samples[0]) if samples else 1
    if not count or any(len(parses) != count for parses in samples):
        raise ValueError("inputs do not all have the same number of completions, at least one")
    flat = [parse for parses in samples for parse in parses]
    valid = np.fromiter((parse.outcome != "invalid" for parse in flat), np.bool_, len(flat))
    stated = [parse.entities if parse.outcome != "invalid" else () for parse in flat]
    lengths = np.fromiter(map(len, stated), np.int64, len(flat))
    written = [entity for entities in stated for entity in entities]
    numbers = _Numbers()
    pairs = [(entity.text, entity.type) for entity in written]
    spelling = np.fromiter(map(numbers.__getitem__, pairs), np.int64, len(pairs))
    # Numbers rise by one at each spelling that was not there before.
    fresh = np.flatnonzero(np.diff(np.maximum.accumulate(spelling), prepend=-1))
    spellings = tuple(written[place] for place in fresh.tolist())
    row = np.repeat(np.arange(len(flat)), lengths)
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    names = _Numbers()
    keys = ((mention_key(entity.text), entity.type) for entity in spellings)
    mention_of = np.fromiter(map(names.__getitem__, keys), np.int64, len(spellings))
    return _with_distinct(
        (len(samples), count),
        valid,
        spellings,
        tuple(names),  # type: ignore[arg-type]
        mention_of,
        (row, spelling, place),
    )


def restrict_columns(columns: Columns, types: Collection[str]) -> Columns:
    """Return the completions without mentions of other types.

    A completion of which none is left becomes invalid, as
    :func:`ccrl_cli.core.agreement.restrict_types` has it.
    """
    known = frozenset(types)
    listed = np.array([entity.type in known for entity in columns.spellings], dtype=np.bool_)
    kept = listed[columns.spelling_m]
    if kept.all():
        return columns
    size = columns.valid_nk.size
    row, spelling = columns.row_m[kept], columns.spelling_m[kept]
    left = np.bincount(row, minlength=size)
    place = np.arange(len(row)) - np.repeat(np.cumsum(left) - left, left)
    emptied = (np.bincount(columns.row_m, minlength=size) > 0) & (left == 0)
    valid = columns.valid_nk.ravel() & ~emptied
    return _with_distinct(
        columns.shape,
        valid,
        columns.spellings,
        columns.mentions,
        columns.mention_of,
        (row, spelling, place),
    )


def _with_distinct(
    shape: tuple[int, int],
    valid: BoolArray,
    spellings: tuple[Entity, ...],
    mentions: tuple[tuple[str, str], ...],
    mention_of: IntArray,
    written: tuple[IntArray, IntArray, IntArray],
) -> Columns:
    """Add the distinct mentions of each completion to the columns of what is written."""
    row, spelling, place = written
    mention = mention_of[spelling] if len(spelling) else spelling
    key = row * max(1, len(mentions)) + mention
    order = np.argsort(key, kind="stable")
    starts = _starts(key[order])
    first = order[starts]
    return Columns(
        shape=shape,
        valid_nk=valid.reshape(shape),
        spellings=spellings,
        mentions=mentions,
        mention_of=mention_of,
        row_m=row,
        spelling_m=spelling,
        place_m=place,
        row_d=row[first],
        mention_d=mention[first],
        copies_d=np.diff(np.append(starts, len(order))),
        place_d=place[first],
    )


def count_votes(columns: Columns) -> Votes:
    """Return the votes of N inputs; copies inside one completion are one vote."""
    num_completions, size = columns.shape[1], max(1, len(columns.mentions))
    key = columns.row_d // num_completions * size + columns.mention_d
    order = np.lexsort((columns.copies_d, key))
    starts = _starts(key[order])
    count = np.diff(np.append(starts, len(order)))
    sums = np.add.reduceat(columns.place_d[order], starts) if len(starts) else starts
    vote = np.empty(len(order), dtype=np.int64)
    vote[order] = np.repeat(np.arange(len(starts)), count)
    first = key[order][starts]
    return Votes(
        input_g=first // size,
        mention_g=first % size,
        spelling_g=_usual_spellings(columns, first),
        count_g=count,
        share_g=count / num_completions,
        copies_g=columns.copies_d[order][starts + (count - 1) // 2],
        place_g=sums / count,
        vote_d=vote,
    )


def _usual_spellings(columns: Columns, keys: IntArray) -> IntArray:
    """Return the most frequent spelling of each vote, ties by code point.

    Args:
        columns: the completions.
        keys: n·mentions + mention of each vote, ascending.
    """
    if len(columns.spellings) == len(columns.mentions):
        return keys % max(1, len(columns.mentions))  # numbered alike: both by first appearance
    size, total = len(columns.mentions), len(columns.spellings)
    ranked = sorted(range(total), key=lambda number: columns.spellings[number].text)
    rank = np.empty(total, dtype=np.int64)
    rank[ranked] = np.arange(total)
    found, count = np.unique(
        columns.row_m // columns.shape[1] * total + columns.spelling_m, return_counts=True
    )
    number = found % total
    key = found // total * size + columns.mention_of[number]
    order = np.lexsort((rank[number], -count, key))
    return np.asarray(number[order][_starts(key[order])])


def cluster_batch(columns: Columns, *, similarity: float = 1.0) -> IntArray:
    """Return a cluster id for each of N x K completions; -1 for an invalid one.

    Two completions of an input share a cluster exactly when
    :func:`ccrl_cli.core.agreement.cluster` says so; the id is the k of the first member.

    Args:
        columns: the completions.
        similarity: entity F1 at which two completions join, in (0, 1], by single linkage.

    Raises:
        ValueError: the similarity is not in (0, 1].
    """
    if not 0 < similarity <= 1:
        raise ValueError(f"similarity is {similarity}, not in (0, 1]")
    num_inputs, num_completions = columns.shape
    joined = np.empty(columns.shape, dtype=np.int64)
    height = max(1, _PAIRS_PER_CHUNK // num_completions**2)
    prints = _fingerprints(columns) if similarity == 1 else None
    for start in range(0, num_inputs, height):
        rows = slice(start, min(start + height, num_inputs))
        if prints is not None:
            same = (prints[rows, :, None] == prints[rows, None, :]).all(axis=-1)
            joined[rows] = same.argmax(axis=2)
        else:
            joined[rows] = _link_batch(columns, rows, similarity)
    return np.where(columns.valid_nk, joined, -1)


def _fingerprints(columns: Columns) -> NDArray[np.uint64]:
    """Return (N, K, 2) words that are equal where the multisets of mentions are.

    The sum of two random 64-bit words a mention: other multisets get an equal sum with a chance
    of 2^-128 a pair, far below that of a fault of the machine. Invalid completions get words of
    their own.
    """
    draws = np.random.Generator(np.random.Philox(key=0))
    words = draws.integers(2**64, size=(len(columns.mentions) + 1, 2), dtype=np.uint64)
    sums = np.zeros((columns.valid_nk.size, 2), dtype=np.uint64)
    starts = _starts(columns.row_d)
    if len(starts):
        parts = words[columns.mention_d] * columns.copies_d.astype(np.uint64)[:, None]
        sums[columns.row_d[starts]] = np.add.reduceat(parts, starts, axis=0)
    sums[~columns.valid_nk.ravel()] = words[-1]
    return sums.reshape(*columns.shape, 2)


def _link_batch(columns: Columns, rows: slice, similarity: float) -> IntArray:
    """Return the first member of the single-linkage cluster of each completion of some inputs."""
    num_completions = columns.shape[1]
    low, high = np.searchsorted(
        columns.row_d, [rows.start * num_completions, rows.stop * num_completions]
    )
    row, copies = columns.row_d[low:high], columns.copies_d[low:high]
    height = rows.stop - rows.start
    sizes = np.bincount(
        row - rows.start * num_completions, weights=copies, minlength=height * num_completions
    ).reshape(height, num_completions)
    shared = _shared_copies(columns, (low, high), rows)
    total = sizes[:, :, None] + sizes[:, None, :]
    # F1 >= s as 2·shared >= s·total is a product: keep the quotient, as the loop has it.
    near = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0) >= similarity
    valid = columns.valid_nk[rows]
    near &= valid[:, :, None] & valid[:, None, :]
    near |= np.eye(num_completions, dtype=np.bool_)
    first = np.broadcast_to(np.arange(num_completions), valid.shape)
    while True:
        lower = np.where(near, first[:, None, :], num_completions).min(axis=2)
        if (lower == first).all():
            return np.asarray(first, dtype=np.int64)
        first = lower


def _shared_copies(columns: Columns, part: tuple[int, int], rows: slice) -> IntArray:
    """Return, for every pair of completions of an input, the mentions they share, as multisets."""
    num_completions = columns.shape[1]
    pick = slice(*part)
    row, mention, copies = columns.row_d[pick], columns.mention_d[pick], columns.copies_d[pick]
    shared = np.zeros((rows.stop - rows.start, num_completions, num_completions), dtype=np.int64)
    order = np.argsort(
        row // num_completions * max(1, len(columns.mentions)) + mention, kind="stable"
    )
    inputs, mention, copies = row[order] // num_completions, mention[order], copies[order]
    member = row[order] % num_completions
    # Pair every holder of a mention with the holder `shift` places on, both ways.
    for shift in range(num_completions):
        here, there = slice(None, len(order) - shift), slice(shift, None)
        same = (inputs[here] == inputs[there]) & (mention[here] == mention[there])
        if not same.any():
            break
        less = np.minimum(copies[here], copies[there])[same]
        at = inputs[here][same] - rows.start
        one, other = member[here][same], member[there][same]
        np.add.at(shared, (at, one, other), less)
        if shift:
            np.add.at(shared, (at, other, one), less)
    return shared


def _starts(keys: IntArray) -> IntArray:
    """Return where each run of equal keys begins."""
    if not len(keys):
        return np.zeros(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Inputs with equally many completions, as arrays.

    Attributes:
        places: their positions among all inputs.
        columns: what their completions say.
        votes: votes over all of it.
    """

    places: tuple[int, ...]
    columns: Columns
    votes: Votes


def make_chunks(samples: Sequence[Sequence[Parse]], size: int = CHUNK) -> list[Chunk]:
    """Return the completions of any inputs as arrays, inputs of equal K together.

    Args:
        samples: completions of each input, at least one.
        size: inputs in a chunk at most, which bounds the size of its arrays.

    Raises:
        ValueError: an input has no completion.
    """
    by_count: dict[int, list[int]] = {}
    for place, parses in enumerate(samples):
        by_count.setdefault(len(parses), []).append(place)
    chunks = []
    for places in by_count.values():
        for start in range(0, len(places), size):
            part = places[start : start + size]
            columns = make_columns([samples[place] for place in part])
            chunks.append(Chunk(tuple(part), columns, count_votes(columns)))
    return chunks
