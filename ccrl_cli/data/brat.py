"""brat's stand-off annotation: a text, and a file of character ranges beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ccrl_cli.data.examples import Mention, Row, TextRow, text_lines
from ccrl_cli.errors import DataError, PreconditionError

_MENTION = re.compile(r"(T\d+)\t(\S+) (\d+ \d+(?:;\d+ \d+)*)(?:\t(.*))?", re.DOTALL)
_LINE = re.compile(r"[^\n]+")


def read_brat(annotations: Path, text: Path) -> Iterator[Row]:
    """Yield the lines of a document as sentences, with the mentions that stand in each.

    Mentions (``T``) are read; relations, events, attributes and notes are not mentions.

    Args:
        annotations: the ``.ann`` file.
        text: the ``.txt`` file that its ranges count characters of.

    Raises:
        PreconditionError: one of the two is missing.
        DataError: a mention is in several parts, goes over a line break, or is not in the text.
    """
    for path in (annotations, text):
        if not path.is_file():
            raise PreconditionError(
                f"{path} does not exist", hint="brat keeps a .txt and an .ann file side by side"
            )
    try:
        document = text.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{text}: byte {error.start + 1} is not UTF-8", hint="save the file as UTF-8"
        ) from None
    mentions = list(_mentions(annotations, document))
    for line in _LINE.finditer(document):
        start, end = line.span()
        own = tuple(
            Mention(m.text, m.type, a - start, b - start)
            for m, a, b in mentions
            if start <= a and b <= end
        )
        yield TextRow(f"{text}: character {start}", line.group(), own, "brat")


def _mentions(path: Path, document: str) -> Iterator[tuple[Mention, int, int]]:
    for number, line in text_lines(path.read_bytes(), str(path)):
        if not line.startswith("T"):
            continue
        match = _MENTION.fullmatch(line)
        if match is None:
            raise DataError(
                f"{path}:{number}: the line is no mention of brat",
                hint="write T1, a tab, type, start and end, a tab, and the text",
            )
        name, kind, ranges, surface = match.groups()
        if ";" in ranges:
            raise DataError(
                f"{path}:{number}: mention {name} is in several parts",
                hint="only mentions in one piece are supported",
            )
        start, end = map(int, ranges.split())
        held = document[start:end]
        if not held.strip() or "\n" in held or (surface is not None and held != surface):
            raise DataError(
                f"{path}:{number}: the text at {start}:{end} is not {surface!r}, in one line",
                hint="ranges count the characters of the .txt file, line breaks included",
            )
        yield Mention(held, kind, start, end), start, end
