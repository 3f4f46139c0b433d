"""Files of predictions, ``predictions-*.jsonl``: one object a sentence, offsets in characters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.core.mistakes import CharSpan, Judgement, judge
from ccrl_cli.errors import IntegrityError
from ccrl_cli.records import Entity
from ccrl_cli.store.jsonl import JsonlReader


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """What a model said about one sentence.

    Attributes:
        input_id: content identifier.
        text: the sentence.
        outcome: ``valid``, ``repaired`` or ``invalid``.
        completion: the raw answer.
        gold: gold spans, or None without gold labels.
        predicted: predicted spans.
        hallucinated: predicted mentions that the text does not hold.
    """

    input_id: str
    text: str
    outcome: str
    completion: str
    gold: tuple[CharSpan, ...] | None
    predicted: tuple[CharSpan, ...]
    hallucinated: tuple[Entity, ...]

    def judgement(self) -> Judgement:
        """Return gold and predicted spans compared; raises ValueError without gold labels."""
        if self.gold is None:
            raise ValueError(f"input {self.input_id} has no gold labels")
        return judge(self.gold, self.predicted, len(self.hallucinated))


def read_prediction(row: Mapping[str, Any], where: str) -> PredictionRow:
    """Return one row as a record.

    Args:
        row: object of a line.
        where: file and line, for messages.

    Raises:
        IntegrityError: a key is missing or a span does not lie in the text.
    """
    try:
        text = str(row["text"])
        gold = row["gold"]
        return PredictionRow(
            input_id=str(row["input_id"]),
            text=text,
            outcome=str(row["outcome"]),
            completion=str(row.get("completion") or ""),
            gold=None if gold is None else tuple(_span(item, text) for item in gold),
            predicted=tuple(_span(item, text) for item in row["predicted"]),
            hallucinated=tuple(
                Entity(str(item["text"]), str(item["type"])) for item in row["hallucinated"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{where} is no prediction: {error}", hint="make the file again with `ccrl evaluate`"
        ) from error


def read_predictions(path: Path) -> list[PredictionRow]:
    """Return all rows of a file.

    Raises:
        IntegrityError: a line is no prediction.
    """
    rows = JsonlReader(path).objects()
    return [read_prediction(row, f"{path}:{line.number}") for line, row in rows]


def _span(item: Mapping[str, Any], text: str) -> CharSpan:
    start, end = int(item["start"]), int(item["end"])
    if not 0 <= start < end <= len(text):
        raise ValueError(f"the range {start}:{end} does not lie in the text")
    return CharSpan(start, end, str(item["type"]))
