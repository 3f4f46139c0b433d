"""The inline markup of corpus files: one sentence a line, mentions as ``[surface|type]``."""

from __future__ import annotations

import re
from collections.abc import Collection

from ccrl_cli.data.examples import Mention, from_text, text_lines
from ccrl_cli.errors import DataError
from ccrl_cli.records import Example

_PIECE = re.compile(r"\\(.?)|([\[\]|])|[^\\\[\]|]+", re.DOTALL)
_ESCAPABLE = "[]|\\#"


def parse_corpus(
    content: bytes, source: str, types: Collection[str] | None = None
) -> tuple[Example, ...]:
    r"""Read a corpus file.

    Blank lines and lines that begin with ``#`` are not sentences (write ``\#`` for a sentence
    that begins so).

    Args:
        content: the file's bytes, UTF-8.
        source: its name, for messages.
        types: the types that may occur; None allows any.

    Raises:
        DataError: the first line that cannot be read, with file and line number.
    """
    examples: list[Example] = []
    for number, line in text_lines(content, source):
        if line.strip() and not line.startswith("#"):
            examples.append(parse_sentence(line, f"{source}:{number}", types))
    return tuple(examples)


def parse_sentence(line: str, where: str, types: Collection[str] | None = None) -> Example:
    """Read one sentence of markup; see :func:`parse_corpus`.

    A backslash takes the meaning from ``[``, ``]``, ``|``, ``#`` and itself.

    Raises:
        DataError: brackets do not match, a mention has no surface or type, its type is not
            known, or an escape is unknown.
    """
    text: list[str] = []
    length = 0
    mentions: list[Mention] = []
    fields: list[list[str]] | None = None  # of the open mention: surface, then type
    start = 0
    for match in _PIECE.finditer(line):
        escaped, mark = match.group(1), match.group(2)
        if mark == "[":
            if fields is not None:
                raise _error(where, match.start(), "a mention begins inside a mention")
            fields, start = [[]], length
            continue
        if mark == "|":
            if fields is None or len(fields) == 2:
                raise _error(where, match.start(), "a bar outside a mention, or a second one in it")
            fields.append([])
            continue
        if mark == "]":
            surface, kind = _close(fields, where, match.start(), types)
            mentions.append(Mention(surface, kind, start, length))
            fields = None
            continue
        piece = match.group()
        if escaped is not None:
            if not escaped or escaped not in _ESCAPABLE:
                raise _error(where, match.start(), f"an unknown escape \\{escaped}")
            piece = escaped
        if fields is not None:
            fields[-1].append(piece)
        if fields is None or len(fields) == 1:
            text.append(piece)
            length += len(piece)
    if fields is not None:
        raise _error(where, len(line), "a mention that is not closed")
    return from_text("".join(text), where, mentions)


def _close(
    fields: list[list[str]] | None, where: str, position: int, types: Collection[str] | None
) -> tuple[str, str]:
    """Return surface and type of a mention that ends at a position."""
    if fields is None:
        raise _error(where, position, "a closing bracket without an opening one")
    parts = ["".join(field) for field in fields]
    if len(parts) != 2 or not all(part.strip() for part in parts):
        raise _error(where, position, "a mention without surface or type")
    surface, kind = parts
    if types is not None and kind not in types:
        raise DataError(
            f"{where}: mention {surface!r} has the unknown type {kind!r}",
            hint=f"use one of: {', '.join(types)}",
        )
    return surface, kind


def _error(where: str, position: int, problem: str) -> DataError:
    return DataError(
        f"{where}: {problem} (column {position + 1})",
        hint="write mentions as [surface|type]; write \\[, \\], \\| and \\\\ for the characters",
    )
