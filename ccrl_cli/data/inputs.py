"""Unlabelled texts to predict on: every line of the input is one text, empty ones too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.data.examples import text_lines
from ccrl_cli.data.readers import decompressed, file_format, read_examples, read_stored
from ccrl_cli.errors import DataError


@dataclass(frozen=True, slots=True)
class InputText:
    """One text, and the ``id`` that its line gave it (None without one)."""

    text: str
    id: str | int | None = None


def read_texts(path: Path) -> list[InputText]:
    """Return the texts of a file; lines of text and JSON Lines keep their count and order.

    Other formats (CoNLL, CSV, Parquet) are read as data sets are, where empty rows are left out.

    Raises:
        PreconditionError: the file does not exist or cannot be read.
        DataError: the format is not known, or a line is malformed.
    """
    kind = file_format(path)
    if kind not in ("text", "jsonl"):
        return [InputText(example.text) for example in read_examples(path).examples]
    content = decompressed(read_stored(path), path)
    return parse_texts(content, str(path), json_lines=kind == "jsonl")


def parse_texts(content: bytes, source: str, *, json_lines: bool | None = None) -> list[InputText]:
    """Return the texts of lines.

    Args:
        content: UTF-8 bytes.
        source: what to call them in messages.
        json_lines: whether each line is a JSON object with ``text`` (and maybe ``id``); None: if
            the first line that is not blank is one.

    Raises:
        DataError: the bytes are not UTF-8, or a line is no such object.
    """
    lines = list(text_lines(content, source))
    if json_lines is None:
        first = next((line for _, line in lines if line.strip()), "")
        json_lines = _as_object(first) is not None
    if not json_lines:
        return [InputText(line) for _, line in lines]
    return [_from_json(line, f"{source}:{number}") for number, line in lines if line.strip()]


def _from_json(line: str, where: str) -> InputText:
    row = _as_object(line)
    if row is None or not isinstance(row["text"], str):
        raise DataError(
            f'{where}: the line is no JSON object with "text"',
            hint='write {"text": "..."} on each line, or plain text in a .txt file',
        )
    name = row.get("id")
    return InputText(row["text"], name if isinstance(name, str | int) else None)


def _as_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "text" in value else None
