"""Files of one token a line: CoNLL of any width, CoNLL-U, Universal NER."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ccrl_cli.data.examples import TAG, Row, TaggedRow, text_lines
from ccrl_cli.errors import DataError

DOCUMENT_START = "-DOCSTART-"
TAG_LIKE = re.compile(rf"O|{TAG.pattern}")
_SPACES = re.compile("[ \t]+")
_WIDE_SPACES = re.compile("[ \t\u00a0\u2007\u202f\u3000]+")
_COMMENT = re.compile(r"#+\s")
_TEXT = re.compile(r"#\s*text\s*=\s?(.*)")
_SETTING = re.compile(r"#\s*[\w:.\-]+\s*=")
_NUMBER = re.compile(r"(\d+)(?:([-.])(\d+))?")
_NAMED_TAG = re.compile(r"(?:^|\|)(?:name|ner|entity)=([^|]*)", re.IGNORECASE)


@dataclass(slots=True)
class _Block:
    """The lines of one sentence."""

    first: int = 0
    text: str | None = None
    lines: list[list[str]] = field(default_factory=list)


def read_conll(content: bytes, source: str) -> Iterator[Row]:
    """Yield the sentences of a file with one token a line and blank lines between sentences.

    Columns are parted by tabs, or by spaces (also wide and non-breaking ones) in a line without a
    tab. The token is the first column, or the second where the first counts 1, 2, 3 (CoNLL-U,
    Universal NER, GermEval). The tag is the last column in which all values are tags, else the
    last column; in CoNLL-U else the value of ``name=``, ``ner=`` or ``entity=`` in the last one.
    With one column alone the sentences are unlabelled. ``# text =`` is the sentence.
    ``-DOCSTART-`` ends a sentence; comment lines before one are skipped.

    Raises:
        DataError: lines differ in their number of columns, end in carriage returns, or are
            numbered without a column of tags, with file and line.
    """
    blocks = list(_blocks(content, source))
    if not blocks:
        return
    width = len(blocks[0].lines[0])
    for block in blocks:
        for place, columns in enumerate(block.lines):
            if len(columns) != width:
                raise DataError(
                    f"{source}:{block.first + place}: {len(columns)} columns, where the lines "
                    f"before have {width}",
                    hint="part token and tag by one tab in every line",
                )
    if width > 2 and all(_is_numbered(block.lines) for block in blocks):
        yield from _numbered(blocks, source)
        return
    tag = _tag_column(blocks, range(1, width)) if width > 1 else None
    if width > 1 and tag is None:
        tag = width - 1
    for block in blocks:
        tags = None if tag is None else tuple(columns[tag] for columns in block.lines)
        tokens = tuple(columns[0] for columns in block.lines)
        yield TaggedRow(f"{source}:{block.first}", tokens, tags, block.text, "CoNLL")


def _blocks(content: bytes, source: str) -> Iterator[_Block]:
    block = _Block()
    for number, line in text_lines(content, source):
        if "\r" in line:
            raise DataError(
                f"{source}:{number}: a carriage return inside the line",
                hint="save the file with line feeds",
            )
        if not line.strip(" \t"):
            if block.lines:
                yield block
            block = _Block()
            continue
        columns = split_columns(line)
        if columns[0] == DOCUMENT_START:
            if block.lines:
                yield block
            block = _Block()
            continue
        if not block.lines and is_comment(line, columns):
            stated = _TEXT.fullmatch(line)
            if stated:
                block.text = stated.group(1)
            continue
        block.first = block.first or number
        block.lines.append(columns)
    if block.lines:
        yield block


def split_columns(line: str) -> list[str]:
    """Return the columns of a line."""
    if "\t" in line:
        return line.rstrip(" ").split("\t")
    columns = _SPACES.split(line.strip(" "))
    return columns if len(columns) > 1 else _WIDE_SPACES.split(line.strip(" \u00a0\u3000"))


def is_comment(line: str, columns: Sequence[str]) -> bool:
    """Return whether a line before a sentence is a comment and no token ``#`` with its tag."""
    if _TEXT.fullmatch(line) or _SETTING.match(line):
        return True
    return _COMMENT.match(line) is not None and not TAG_LIKE.fullmatch(columns[-1])


def _is_numbered(lines: Sequence[Sequence[str]]) -> bool:
    """Return whether the first column counts the tokens: 1, 2, 3, with ranges (``1-2``)."""
    due = 1
    for columns in lines:
        match = _NUMBER.fullmatch(columns[0])
        if match is None:
            return False
        if match.group(2) is None:
            if int(match.group(1)) != due:
                return False
            due += 1
    return due > 1


def _tag_column(blocks: Sequence[_Block], columns: Sequence[int]) -> int | None:
    """Return the last column of which every value is a tag, preferring one with a mention."""
    fitting = [
        column
        for column in columns
        if all(TAG_LIKE.fullmatch(line[column]) for block in blocks for line in block.lines)
    ]
    marked = [
        column
        for column in fitting
        if any(line[column] != "O" for block in blocks for line in block.lines)
    ]
    return next(reversed(marked or fitting), None)


def _numbered(blocks: Sequence[_Block], source: str) -> Iterator[Row]:
    """Yield sentences whose first column counts; the outermost tags are those of column 3."""
    width = len(blocks[0].lines[0])
    plain = [
        _Block(block.first, block.text, [c for c in block.lines if c[0].isdecimal()])
        for block in blocks
    ]
    fitting = [column for column in range(2, width) if _tag_column(plain, [column]) is not None]
    column = fitting[0] if fitting else None
    named = column is None and any(_NAMED_TAG.search(c[-1]) for b in plain for c in b.lines)
    if column is None and not named:
        _refuse_other_tags(plain, width, source)
    for block in blocks:
        tokens, tags = _surface(block.lines, column, named)
        labelled = column is not None or named
        yield TaggedRow(
            f"{source}:{block.first}",
            tokens,
            tags if labelled else None,
            block.text,
            "CoNLL-U" if width == 10 else "Universal NER" if width == 5 else "CoNLL",
        )


def _refuse_other_tags(blocks: Sequence[_Block], width: int, source: str) -> None:
    """Raise DataError if numbered lines have labels that are none of those known."""
    for block in blocks:
        for place, columns in enumerate(block.lines):
            if "Entity=" in columns[-1] or any(
                value[:2] in ("B-", "I-") and TAG_LIKE.fullmatch(value) for value in columns[2:]
            ):
                raise DataError(
                    f"{source}:{block.first + place}: no column holds a tag in every line "
                    f"({width} columns)",
                    hint="write token and tag, parted by a tab, one token a line",
                )
    if width not in (3, 10):
        return
    if width == 3:
        raise DataError(
            f"{source}:{blocks[0].first}: the third column holds no tags such as B-person and O",
            hint="write token and tag, parted by a tab, one token a line",
        )


def _surface(
    lines: Sequence[Sequence[str]], column: int | None, named: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the tokens as they stand in the text (contractions whole) with their tags."""
    tokens: list[str] = []
    tags: list[str] = []
    until = 0
    for columns in lines:
        match = _NUMBER.fullmatch(columns[0])
        if match is None or match.group(2) == ".":
            continue  # an empty node of the enhanced graph has no place in the text
        tag = "O"
        if column is not None and match.group(2) is None:
            tag = columns[column]
        elif named:
            found = _NAMED_TAG.search(columns[-1])
            tag = found.group(1) if found else "O"
        if match.group(2) == "-":
            until = int(match.group(3))
            tokens.append(columns[1])
            tags.append("O")
        elif int(match.group(1)) <= until:
            if tags[-1] == "O":  # the first word of the contraction that is part of a mention
                tags[-1] = tag
        else:
            tokens.append(columns[1])
            tags.append(tag)
    return tuple(tokens), tuple(tags)
