"""Scoring any system's predictions from a file, with no model."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_cli.core.alignment import mention_key
from ccrl_cli.core.placing import CharRange, TextIndex
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.examples import (
    RejectedRow,
    TaggedRow,
    checked_range,
    from_tagged,
    text_lines,
)
from ccrl_cli.data.readers import (
    decompressed,
    file_format,
    read_examples,
    read_rows,
    read_stored,
)
from ccrl_cli.errors import DataError
from ccrl_cli.pipelines.evaluation.prediction import (
    Mention,
    Prediction,
    make_prediction,
    place_mentions,
)
from ccrl_cli.pipelines.evaluation.scoring import Scores, score_predictions
from ccrl_cli.records import Entity, Example, Outcome

_OUTCOMES: Mapping[str, Outcome] = {"repaired": "repaired", "invalid": "invalid"}


@dataclass(frozen=True, slots=True)
class FileScores:
    """Scores of a file of predictions.

    Attributes:
        predictions: the file.
        gold: the file of gold labels.
        types: the label set: every type of the gold file.
        scores: as of ``ccrl evaluate``.
        missing: gold sentences without a prediction; they count as answered with nothing.
        unmatched: predictions for sentences that are not in the gold file; left out.
        rows: one a gold sentence, as in ``predictions-*.jsonl``.
    """

    predictions: str
    gold: str
    types: tuple[str, ...]
    scores: Scores
    missing: int
    unmatched: int
    rows: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Said:
    """What a system said about one sentence.

    Attributes:
        text: the sentence.
        ranges: mentions with their character ranges in it.
        mentions: mentions that are still to be placed.
        outcome: ``valid``, ``repaired`` or ``invalid``.
    """

    text: str
    ranges: tuple[tuple[int, int, str], ...] = ()
    mentions: tuple[Entity, ...] = ()
    outcome: Outcome = "valid"


def score_files(predictions: Path, gold: Path, *, seed: int = 0) -> FileScores:
    """Score predictions against gold labels, sentence by sentence, matched by their text.

    Predictions may be in any format that gold labels may be in; as JSON Lines also as ``ccrl
    predict`` and ``ccrl evaluate`` write them, and with mentions that the text does not hold.
    Sentences are matched by their exact text first, then by their visible characters. A mention
    without a character range is placed left to right, longest first.

    Args:
        predictions: the file of predictions.
        gold: a file of labelled sentences.
        seed: of the bootstrap.

    Raises:
        PreconditionError: a file is missing.
        DataError: a file cannot be read, a gold sentence has no labels, a sentence states no
            predictions, a range contradicts its text, or no sentence is in both.
    """
    due = read_examples(gold)
    bare = sum(example.gold is None for example in due.examples)
    if bare or not due.examples:
        raise DataError(
            f"{gold}: {bare} of {len(due.examples)} sentences have no gold labels",
            hint="give a file in which every sentence is labelled",
        )
    listed = list(_read(predictions))
    answers = _paired(due.examples, listed)
    judged = [
        _prediction(example, said or _Said(example.text))
        for example, said in zip(due.examples, answers, strict=True)
    ]
    missing = sum(said is None for said in answers)
    if missing == len(judged):
        raise DataError(
            f"{predictions} has no prediction for any sentence of {gold}",
            hint="sentences are matched by their text, white space apart",
        )
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", "file"))
    return FileScores(
        predictions=str(predictions),
        gold=str(gold),
        types=due.labels,
        scores=score_predictions(judged, due.labels, rng),
        missing=missing,
        unmatched=len(listed) - (len(judged) - missing),
        rows=tuple(item.row() for item in judged),
    )


def _paired(examples: Sequence[Example], listed: Sequence[_Said]) -> list[_Said | None]:
    """Return what was said about each sentence: by exact text first, then by visible characters."""
    found: list[_Said | None] = [None] * len(examples)
    rest = list(listed)
    keys: tuple[Callable[[str], str], ...] = (str, mention_key)
    for key in keys:
        said: dict[str, deque[_Said]] = defaultdict(deque)
        for item in rest:
            said[key(item.text)].append(item)
        for place, example in enumerate(examples):
            queue = said.get(key(example.text))
            if found[place] is None and queue:
                found[place] = queue.popleft()
        rest = [item for queue in said.values() for item in queue]
    return found


def _read(path: Path) -> Iterator[_Said]:
    """Yield what a file says, sentence by sentence."""
    stored = read_stored(path)
    rows = list(read_rows(path, stored, predicted=True))
    tagged = iter(from_tagged([row for row in rows if isinstance(row, TaggedRow)]).examples)
    beside = _beside(path, stored)
    for row in rows:
        if isinstance(row, RejectedRow):
            continue
        loose, outcome = beside.get(row.where, ((), "valid"))
        if isinstance(row, TaggedRow):
            example = next(tagged)
            if example.gold is None:
                raise _unstated(row.where)
            ranges = tuple(
                (example.offsets[s.start][0], example.offsets[s.end - 1][1], s.type)
                for s in example.gold
            )
            yield _Said(example.text, ranges)
        elif row.mentions is None:
            if row.text.strip():
                raise _unstated(row.where)
        else:
            ranged = [m for m in row.mentions if m.start is not None]
            mentions = [Entity(m.text or "", m.type) for m in row.mentions if m.start is None]
            yield _Said(
                row.text,
                tuple(checked_range(row.text, mention, row.where) for mention in ranged),
                (*mentions, *loose),
                outcome,
            )


def _unstated(where: str) -> DataError:
    return DataError(
        f"{where}: the sentence states no predictions",
        hint='write {"text": ..., "entities": [{"text": ..., "type": ...}]} for each, with an '
        "empty list where nothing was found",
    )


def _beside(path: Path, stored: bytes) -> dict[str, tuple[tuple[Entity, ...], Outcome]]:
    """Return the mentions that the text does not hold, and outcomes, of ccrl's own rows by line."""
    if file_format(path) != "jsonl":
        return {}
    found: dict[str, tuple[tuple[Entity, ...], Outcome]] = {}
    for number, line in text_lines(decompressed(stored, path), str(path)):
        row = json.loads(line) if line.strip(" \t\r") else None
        if not isinstance(row, dict) or not ("hallucinated" in row or "outcome" in row):
            continue
        where = f"{path}:{number}"
        try:
            loose = tuple(
                Entity(str(item["text"]), str(item["type"]))
                for item in row.get("hallucinated") or ()
            )
        except (KeyError, TypeError):
            raise DataError(
                f'{where}: "hallucinated" is no list of mentions',
                hint='write {"text": ..., "type": ...} for each, or leave it out',
            ) from None
        found[where] = loose, _OUTCOMES.get(str(row.get("outcome")), "valid")
    return found


def _prediction(example: Example, said: _Said) -> Prediction:
    """Return a prediction placed on the gold sentence, its tokens cut where that is needed."""
    ranges = said.ranges
    loose: list[Entity] = []
    if said.text != example.text and ranges:
        ranges, loose = _carried(example.text, said)
    starts = {start for start, _ in example.offsets} - set(example.cuts)
    ends = {end for _, end in example.offsets} - set(example.cuts)
    mentions = [
        Mention(CharRange(start, end, inside=start not in starts or end not in ends), kind)
        for start, end, kind in sorted(set(ranges))
    ]
    taken = [(mention.place.start, mention.place.end) for mention in mentions]
    more, without = place_mentions(example, said.mentions, taken=taken)
    return make_prediction(
        example, said.outcome, [*mentions, *more], [*loose, *without], completion=""
    )


def _carried(text: str, said: _Said) -> tuple[tuple[tuple[int, int, str], ...], list[Entity]]:
    """Return ranges in another spelling of the sentence, and mentions that have none there."""
    own, other = TextIndex(said.text), TextIndex(text)
    ranges: list[tuple[int, int, str]] = []
    loose: list[Entity] = []
    for start, end, kind in said.ranges:
        place = own.carry(start, end, other)
        if place is None:
            loose.append(Entity(said.text[start:end], kind))
        else:
            ranges.append((*place, kind))
    return tuple(ranges), loose
