"""Line and column formats (CoNLL, plain text, CSV, TSV) to sentences."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

from ccrl_cli.data.examples import TAG, Row, TaggedRow, TextRow, text_lines
from ccrl_cli.errors import DataError

_DOCUMENT_START = "-DOCSTART-"
_SPACES = re.compile("[ \t]+")
_TAG_LIKE = re.compile(rf"O|{TAG.pattern}")
_FEW = 0.1
"""Share of lines that may end like a tag in plain text before the format is in doubt."""

_TOKEN_FIELDS = ("token", "word")
_TAG_FIELDS = ("tag", "ner_tag", "ner")
_SENTENCE_FIELDS = ("sentence_id", "sent_id", "sentence", "sentence #")


def read_conll(content: bytes, source: str) -> Iterator[Row]:
    """Yield the sentences of a file with one token a line and blank lines between sentences.

    Columns are parted by tabs, or by spaces in a line without a tab. The token is the first, the
    tag the last column; with one column alone the sentences are unlabelled. ``-DOCSTART-`` lines
    and, before a sentence, comment lines (``# `` without a tag at the end) are skipped.

    Raises:
        DataError: lines differ in their number of columns, with file and line.
    """
    tokens: list[str] = []
    tags: list[str] = []
    width = first = 0
    for number, line in text_lines(content, source):
        if not line.strip(" \t"):
            yield from _sentence(tokens, tags, width, f"{source}:{first}")
            tokens, tags = [], []
            continue
        columns = _columns(line)
        if columns[0] == _DOCUMENT_START or (not tokens and _is_comment(columns)):
            continue
        width = width or len(columns)
        if len(columns) != width:
            raise DataError(
                f"{source}:{number}: {len(columns)} columns, where the lines before have {width}",
                hint="part token and tag by one tab in every line",
            )
        if not tokens:
            first = number
        tokens.append(columns[0])
        tags.append(columns[-1])
    yield from _sentence(tokens, tags, width, f"{source}:{first}")


def _sentence(
    tokens: Sequence[str], tags: Sequence[str], width: int, where: str
) -> Iterator[TaggedRow]:
    if tokens:
        yield TaggedRow(where, tuple(tokens), tuple(tags) if width > 1 else None)


def _columns(line: str) -> list[str]:
    return line.rstrip(" ").split("\t") if "\t" in line else _SPACES.split(line.strip(" "))


def _is_comment(columns: Sequence[str]) -> bool:
    return columns[0] == "#" and not _TAG_LIKE.fullmatch(columns[-1])


def read_text(content: bytes, source: str) -> Iterator[Row]:
    """Yield the sentences of a ``.txt`` file: CoNLL columns if it looks so, else one a line.

    It is CoNLL if every line but the blank ones ends in a tag, or all have the same number of
    tabs; it is plain text if hardly any does.

    Raises:
        DataError: the file looks like neither.
    """
    lines = list(text_lines(content, source))
    if _looks_like_conll(lines, source):
        yield from read_conll(content, source)
        return
    for number, line in lines:
        yield TextRow(f"{source}:{number}", line)


def _looks_like_conll(lines: Iterable[tuple[int, str]], source: str) -> bool:
    tagged = tabbed = total = 0
    tabs: set[int] = set()
    odd: int | None = None
    start = True
    for number, line in lines:
        if not line.strip(" \t"):
            start = True
            continue
        columns = _columns(line)
        if columns[0] == _DOCUMENT_START or (start and _is_comment(columns)):
            continue
        start = False
        total += 1
        tabs.add(line.count("\t"))
        tabbed += "\t" in line
        if len(columns) > 1 and _TAG_LIKE.fullmatch(columns[-1]):
            tagged += 1
        elif odd is None:
            odd = number
    if total and (tagged == total or (tabbed == total and len(tabs) == 1)):
        return True
    if tagged <= _FEW * total and 2 * tabbed < total:
        return False
    raise DataError(
        f"{source}: {tagged} of {total} lines end in a tag, line {odd} does not: the file is"
        " neither CoNLL columns nor plain sentences",
        hint="name it .conll to see the first wrong line, or write the sentences as JSONL",
    )


def read_delimited(content: bytes, source: str, delimiter: str) -> Iterator[Row]:
    """Yield the sentences of a CSV file, or of a TSV file (which has no quotes).

    The header names a ``text`` column (one unlabelled sentence a row), or a token column, a
    sentence id column and maybe a tag column (one token a row; a blank id continues the sentence).

    Raises:
        DataError: the header has neither, or a row has another number of fields.
    """
    records = _records(content, source, delimiter)
    header = [name.strip().casefold() for name in next(records, (0, []))[1]]
    if "text" in header:
        column = header.index("text")
        for number, record in _checked(records, len(header), source):
            yield TextRow(f"{source}:{number}", record[column])
        return
    token, tag, sentence = (
        next((header.index(name) for name in names if name in header), None)
        for names in (_TOKEN_FIELDS, _TAG_FIELDS, _SENTENCE_FIELDS)
    )
    if token is None or sentence is None:
        raise DataError(
            f"{source}:1: the header names no text column, and no token with sentence_id columns",
            hint="begin the file with a header: text, or sentence_id, token, tag",
        )
    yield from _token_rows(_checked(records, len(header), source), (token, tag, sentence), source)


def _token_rows(
    records: Iterable[tuple[int, list[str]]], columns: tuple[int, int | None, int], source: str
) -> Iterator[Row]:
    token, tag, sentence = columns
    width = 1 if tag is None else 2
    tokens: list[str] = []
    tags: list[str] = []
    current, first = "", 0
    for number, record in records:
        identifier = record[sentence].strip()
        if identifier and identifier != current:
            yield from _sentence(tokens, tags, width, f"{source}:{first}")
            tokens, tags, current, first = [], [], identifier, number
        tokens.append(record[token])
        tags.append("O" if tag is None else record[tag].strip())
    yield from _sentence(tokens, tags, width, f"{source}:{first}")


def _checked(
    records: Iterable[tuple[int, list[str]]], width: int, source: str
) -> Iterator[tuple[int, list[str]]]:
    for number, record in records:
        if len(record) != width:
            raise DataError(
                f"{source}:{number}: {len(record)} fields, but the header has {width}",
                hint="quote fields that hold the delimiter or a quote (CSV)",
            )
        yield number, record


def _records(content: bytes, source: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the non-blank records with the number of their first line."""
    lines = text_lines(content, source)
    if delimiter == "\t":
        yield from ((number, line.split("\t")) for number, line in lines if line)
        return
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit()
    while True:
        number = reader.line_num + 1
        csv.field_size_limit(sys.maxsize if sys.maxsize < 2**31 else 2**31 - 1)
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{source}:{number}: the record cannot be read ({error})",
                hint="quote fields with double quotes, and double the quotes inside",
            ) from None
        finally:
            csv.field_size_limit(limit)
        if record:
            yield number, record
