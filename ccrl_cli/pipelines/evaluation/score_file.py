"""Scoring any system's predictions from a file, with no model."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ccrl_cli.core.placing import CharRange
from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.data.readers import read_examples
from ccrl_cli.errors import DataError
from ccrl_cli.pipelines.evaluation.prediction import (
    Mention,
    Prediction,
    make_prediction,
    place_mentions,
)
from ccrl_cli.pipelines.evaluation.scoring import Scores, score_predictions
from ccrl_cli.records import Entity, Example, Outcome
from ccrl_cli.store.jsonl import JsonlReader

_KEYS = ("predicted", "entities")
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
        ranges: mentions with their character ranges.
        mentions: mentions that are still to be placed.
        loose: mentions that the text does not hold.
        outcome: ``valid``, ``repaired`` or ``invalid``.
    """

    text: str
    ranges: tuple[tuple[int, int, str], ...] = ()
    mentions: tuple[Entity, ...] = ()
    loose: tuple[Entity, ...] = ()
    outcome: Outcome = "valid"


def score_files(predictions: Path, gold: Path, *, seed: int = 0) -> FileScores:
    """Score predictions against gold labels, sentence by sentence, matched by their text.

    Predictions may be in any format that gold labels may be in; as JSON Lines also as ``ccrl
    predict`` and ``ccrl evaluate`` write them, and with mentions that the text does not hold. A
    mention without a character range is placed left to right, longest first.

    Args:
        predictions: the file of predictions.
        gold: a file of labelled sentences.
        seed: of the bootstrap.

    Raises:
        PreconditionError: a file is missing.
        DataError: a file cannot be read, a gold sentence has no labels, or no sentence is in both.
    """
    due = read_examples(gold)
    bare = sum(example.gold is None for example in due.examples)
    if bare or not due.examples:
        raise DataError(
            f"{gold}: {bare} of {len(due.examples)} sentences have no gold labels",
            hint="give a file in which every sentence is labelled",
        )
    said: dict[str, deque[_Said]] = defaultdict(deque)
    number = 0
    for item in _read(predictions):
        said[item.text].append(item)
        number += 1
    judged, missing = [], 0
    for example in due.examples:
        queue = said.get(example.text)
        if not queue:
            missing += 1
        judged.append(_prediction(example, queue.popleft() if queue else _Said(example.text)))
    if missing == len(judged):
        raise DataError(
            f"{predictions} has no prediction for any sentence of {gold}",
            hint="sentences are matched by their text: tokens joined by spaces, or `text`",
        )
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", "file"))
    return FileScores(
        predictions=str(predictions),
        gold=str(gold),
        types=due.labels,
        scores=score_predictions(judged, due.labels, rng),
        missing=missing,
        unmatched=number - (len(judged) - missing),
        rows=tuple(item.row() for item in judged),
    )


def _read(path: Path) -> Iterator[_Said]:
    """Yield what a file says, sentence by sentence."""
    if path.suffix.casefold() in (".jsonl", ".ndjson") and path.is_file():
        rows = [(line.number, row) for line, row in JsonlReader(path).objects()]
        if rows and all("text" in row and any(key in row for key in _KEYS) for _, row in rows):
            for line, row in rows:
                yield _from_row(row, f"{path}:{line}")
            return
    for example in read_examples(path).examples:
        ranges = tuple(
            (example.offsets[s.start][0], example.offsets[s.end - 1][1], s.type)
            for s in example.gold or ()
        )
        yield _Said(example.text, ranges)


def _from_row(row: Mapping[str, Any], where: str) -> _Said:
    try:
        ranges, mentions = [], []
        stated = row["predicted"] if "predicted" in row else row["entities"]
        for item in stated:
            if item.get("start") is None:
                mentions.append(Entity(str(item["text"]), str(item["type"])))
            else:
                ranges.append((int(item["start"]), int(item["end"]), str(item["type"])))
        loose = [
            Entity(str(item["text"]), str(item["type"])) for item in row.get("hallucinated") or ()
        ]
        outcome = _OUTCOMES.get(str(row.get("outcome")), "valid")
        return _Said(
            str(row["text"]),
            tuple(ranges),
            tuple(mentions),
            tuple(loose),
            outcome,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{where} is no prediction ({error!r})",
            hint='write {"text": ..., "entities": [{"text": ..., "type": ...}]}, with or without '
            "start and end",
        ) from None


def _prediction(example: Example, said: _Said) -> Prediction:
    """Return a prediction placed on the gold sentence's own tokens.

    A range that does not begin and end on its tokens is a false positive without a place, as a
    mention that the text does not hold is.
    """
    starts = {start for start, _ in example.offsets}
    ends = {end for _, end in example.offsets}
    mentions: list[Mention] = []
    loose: list[Entity] = list(said.loose)
    for start, end, kind in sorted(set(said.ranges)):
        if start in starts and end in ends and start < end:
            mentions.append(Mention(CharRange(start, end), kind))
        else:
            loose.append(Entity(example.text[max(0, start) : max(0, end)], kind))
    taken = [(mention.place.start, mention.place.end) for mention in mentions]
    more, without = place_mentions(example, said.mentions, taken=taken)
    return make_prediction(
        example, said.outcome, [*mentions, *more], [*loose, *without], completion=""
    )
