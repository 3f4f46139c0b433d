"""Type scores beside a store: one JSON line an input, derived from it and made again at will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.core.type_evidence import SpanScore
from ccrl_cli.store.jsonl import JsonlReader, bad_line

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class TypeScores:
    """Scores of the spans of one input.

    Attributes:
        identity: what the numbers depend on: model, prompt, labels.
        types: T type identifiers, in the order of the scores.
        content_free: (T,) log-probabilities with text and span blanked.
        spans: scored spans.
    """

    input_id: str
    model: str
    identity: Mapping[str, Any]
    types: tuple[str, ...]
    content_free: tuple[float, ...]
    spans: tuple[SpanScore, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as one JSON object."""
        return {
            "schema": SCHEMA,
            "input_id": self.input_id,
            "model": self.model,
            "identity": dict(self.identity),
            "types": list(self.types),
            "content_free": [round(value, 5) for value in self.content_free],
            "spans": [
                {"text": span.text, "logprobs": [round(value, 5) for value in span.logprobs]}
                for span in self.spans
            ],
        }


def type_scores_path(store: Path) -> Path:
    """Return ``<store>.types.jsonl``, the store's own ``.jsonl`` not repeated."""
    return store.with_name(store.name.removesuffix(".jsonl") + ".types.jsonl")


def read_type_scores(path: Path, model: str, identity: Mapping[str, Any]) -> dict[str, TypeScores]:
    """Return the last record of each input that a model scored under an identity.

    Args:
        path: the file; none gives no scores.
        model: name of the model.
        identity: entries that a record must have; it may have more.

    Raises:
        IntegrityError: a line is bad.
    """
    found: dict[str, TypeScores] = {}
    if not path.exists():
        return found
    for line, value in JsonlReader(path).objects():
        try:
            known = value["identity"]
            if value["model"] != model or any(known.get(k) != v for k, v in identity.items()):
                continue
            found[value["input_id"]] = TypeScores(
                input_id=value["input_id"],
                model=value["model"],
                identity=known,
                types=tuple(value["types"]),
                content_free=tuple(map(float, value.get("content_free") or value["blank"])),
                spans=tuple(
                    SpanScore(span["text"], tuple(map(float, span["logprobs"])))
                    for span in value["spans"]
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise bad_line(path, line.number, repr(error)) from error
    return found
