"""Example sentences for a page: what training fixed, broke, and left wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ccrl_cli.core.mistakes import JudgedSpan, Judgement, Segment, segments
from ccrl_cli.records import Entity
from ccrl_cli.store.predictions import PredictionRow


@dataclass(frozen=True, slots=True)
class Row:
    """One marked copy of a sentence: gold, or an answer with what it invented."""

    title: str
    pieces: tuple[Segment, ...]
    hallucinated: tuple[Entity, ...] = ()
    invalid: bool = False


@dataclass(frozen=True, slots=True)
class Example:
    """A sentence with gold and the answers before and after training."""

    input_id: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Examples of one kind.

    Attributes:
        title: what they have in common.
        total: how many sentences there are of this kind.
        num_sentences: sentences compared.
        examples: the most instructive ones.
    """

    title: str
    total: int
    num_sentences: int
    examples: tuple[Example, ...]


def choose_examples(
    before: Sequence[PredictionRow], after: Sequence[PredictionRow], *, limit: int = 5
) -> tuple[Group, ...]:
    """Return sentences that got better, got worse, and stayed wrong; most instructive first.

    Better and worse is the F1 of the sentence. Better and worse: largest change first, then most
    right mentions; stayed wrong: most mistakes first. Sentences without gold labels, or in one
    file alone, are left out.

    Args:
        before: answers of the starting policy.
        after: answers after training.
        limit: examples of each kind.
    """
    earlier = {row.input_id: row for row in before if row.gold is not None}
    pairs = [
        (earlier[row.input_id], row)
        for row in {row.input_id: row for row in after}.values()
        if row.gold is not None and row.input_id in earlier
    ]
    changes = [(old, new, sentence_f1(new) - sentence_f1(old)) for old, new in pairs]
    better = [item for item in changes if item[2] > 0]
    worse = [item for item in changes if item[2] < 0]
    same = [item for item in changes if item[2] == 0 and sentence_f1(item[1]) < 1]
    better.sort(key=lambda i: (-i[2], -i[1].judgement().num_right, i[1].input_id))
    worse.sort(key=lambda i: (i[2], -i[0].judgement().num_right, i[1].input_id))
    same.sort(key=lambda i: (-i[1].judgement().num_wrong, i[1].input_id))
    kinds = (("Better after training", better), ("Worse after training", worse),
             ("As wrong as before", same))  # fmt: skip
    return tuple(
        Group(
            title,
            len(items),
            len(changes),
            tuple(_example(old, new) for old, new, _ in items[:limit]),
        )
        for title, items in kinds
    )


def sentence_f1(row: PredictionRow) -> float:
    """Return the F1 of an answer; 0 for one that cannot be read."""
    return 0.0 if row.outcome == "invalid" else row.judgement().f1


def _example(before: PredictionRow, after: PredictionRow) -> Example:
    old, new = before.judgement(), after.judgement()
    gold = tuple(JudgedSpan(item.span, "right") for item in new.gold)
    return Example(
        after.input_id,
        (
            Row("gold", segments(after.text, gold)),
            _answer("before", before, old),
            _answer("after", after, new),
        ),
    )


def _answer(title: str, row: PredictionRow, found: Judgement) -> Row:
    """Return an answer with its spans and, where it has nothing, the gold spans it missed."""
    missed = [item for item in found.gold if item.verdict == "missed"]
    spans = (*found.predicted, *missed)
    return Row(title, segments(row.text, spans), row.hallucinated, row.outcome == "invalid")
