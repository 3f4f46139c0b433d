"""Plain text and tables (CSV, TSV) to sentences."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence

from ccrl_cli.data.conll import (
    DOCUMENT_START,
    TAG_LIKE,
    is_comment,
    read_conll,
    split_columns,
)
from ccrl_cli.data.examples import Row, TaggedRow, TextRow, text_lines
from ccrl_cli.data.shapes import MENTION_FIELDS, TAG_FIELDS, row_from_fields
from ccrl_cli.errors import DataError

_FEW = 0.1
"""Share of lines that may end like a tag in plain text before the format is in doubt."""

_TOKEN_FIELDS = ("token", "word")
_TAG_COLUMNS = ("tag", "ner_tag", "ner")
_SENTENCE_FIELDS = ("sentence_id", "sent_id", "sentence", "sentence #")


def read_text(content: bytes, source: str) -> Iterator[Row]:
    """Yield the sentences of a ``.txt`` file: CoNLL columns if it looks so, else one a line.

    It is CoNLL if it has more than one line, all of one number of columns, and every line but the
    blank ones ends in a tag; it is plain text if hardly any does.

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
    tagged = tabbed = total = bare = 0
    widths: set[int] = set()
    last: set[str] = set()
    odd: int | None = None
    start = True
    for number, line in lines:
        if not line.strip(" \t"):
            start = True
            continue
        columns = split_columns(line)
        if columns[0] == DOCUMENT_START or (start and is_comment(line, columns)):
            continue
        start = False
        total += 1
        widths.add(len(columns))
        tabbed += "\t" in line
        last.add(columns[-1])
        bare += len(columns) > 1 and " " not in columns[-1]
        if len(columns) > 1 and TAG_LIKE.fullmatch(columns[-1]):
            tagged += 1
        elif odd is None:
            odd = number
    if total < 2:
        return bool(tagged and tabbed and widths == {2})
    if len(widths) == 1 and (tagged == total or (tabbed == bare == total and "O" in last)):
        return True
    if tagged <= _FEW * total and 2 * tabbed < total:
        return False
    if tagged == total:
        raise DataError(
            f"{source}: every line ends like a tag, but they differ in their number of columns",
            hint="name it .conll to see the first wrong line, or write the sentences as JSONL",
        )
    raise DataError(
        f"{source}: {tagged} of {total} lines end in a tag, line {odd} does not: the file is"
        " neither CoNLL columns nor plain sentences",
        hint="name it .conll to see the first wrong line, or write the sentences as JSONL",
    )


def read_delimited(content: bytes, source: str, delimiter: str) -> Iterator[Row]:
    """Yield the sentences of a CSV file, or of a TSV file (which has no quotes).

    A CSV file may be parted by semicolons or tabs: whichever its header shows. The header names a
    ``text`` column (one sentence a row, with its mentions as JSON in a column such as
    ``entities``, if any), or a token column, a sentence id column and maybe a tag column (one
    token a row; a blank id continues the sentence). A TSV file without a header whose lines end in
    tags is CoNLL.

    Raises:
        DataError: the header has neither, or a row has another number of fields.
    """
    records = _records(content, source, _delimiter(content, source, delimiter))
    header = [name.strip().casefold() for name in next(records, (0, []))[1]]
    if "text" in header:
        for number, record in _checked(records, len(header), source):
            fields = dict(zip(header, record, strict=True))
            blank = {n for n in (*TAG_FIELDS, *MENTION_FIELDS) if not fields.get(n, "x").strip()}
            stated = {name: value for name, value in fields.items() if name not in blank}
            yield row_from_fields(stated, f"{source}:{number}")
        return
    token, tag, sentence = (
        next((header.index(name) for name in names if name in header), None)
        for names in (_TOKEN_FIELDS, _TAG_COLUMNS, _SENTENCE_FIELDS)
    )
    if (token is None or sentence is None) and delimiter == "\t" and _is_conll(content, source):
        yield from read_conll(content, source)
        return
    if token is None or sentence is None:
        raise DataError(
            f"{source}:1: the header names no text column, and no token with sentence_id columns",
            hint="begin the file with a header: text, or sentence_id, token, tag",
        )
    yield from _token_rows(_checked(records, len(header), source), (token, tag, sentence), source)


def _sentence(
    tokens: Sequence[str], tags: Sequence[str], width: int, where: str
) -> Iterator[TaggedRow]:
    if tokens:
        yield TaggedRow(where, tuple(tokens), tuple(tags) if width > 1 else None)


def _is_conll(content: bytes, source: str) -> bool:
    lines = list(text_lines(content, source))
    columns = [split_columns(line) for _, line in lines if line.strip() and line[0] != "#"]
    if not columns or not all(TAG_LIKE.fullmatch(line[-1]) for line in columns[:2]):
        return False
    try:
        return _looks_like_conll(lines, source)
    except DataError:
        return False


def _delimiter(content: bytes, source: str, given: str) -> str:
    """Return what parts the columns of a header: the given mark, or ``;`` or a tab in its place."""
    if given == "\t":
        return given
    first = next((line for _, line in text_lines(content, source) if line.strip()), "")
    known = {"text", *_TOKEN_FIELDS, *_SENTENCE_FIELDS}
    for mark in (given, ";", "\t"):
        names = [name.strip(' "').casefold() for name in first.split(mark)]
        if known & set(names):
            return mark
    return given


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
