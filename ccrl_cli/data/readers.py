"""Reading an input file of any known format, and counting what was found on the way."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccrl_cli.data.columns import read_conll, read_delimited, read_text
from ccrl_cli.data.examples import Row, TaggedRow, TextRow, from_tagged, from_text
from ccrl_cli.data.rows import read_json_lines, read_parquet
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.records import Example

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".conll": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""File suffix to format; each may be followed by ``.gz``."""


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """What a file held.

    Attributes:
        sentences: sentences read and returned.
        empty: rows without any token, which are not returned.
        duplicates: sentences whose text occurred before; they are returned.
        labelled: sentences with gold labels.
        without_mention: labelled sentences that have no mention.
        mentions: gold mentions.
        converted_tags: tags that changed because the file is not IOB2.
        repaired_tags: tags that break the file's own scheme, read as beginning a mention.
        other_types: gold mentions left out because their type is not among the labels asked for.
        truncated: sentences left out by a limit on their number.
    """

    sentences: int = 0
    empty: int = 0
    duplicates: int = 0
    labelled: int = 0
    without_mention: int = 0
    mentions: int = 0
    converted_tags: int = 0
    repaired_tags: int = 0
    other_types: int = 0
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The sentences of one file, in its order.

    Attributes:
        examples: inputs, duplicates included.
        counts: what was found.
        labels: types seen, sorted.
        scheme: tag scheme found, None if the file has no tags.
        sha256: hash of the file as it is stored (compressed, if it is).
    """

    examples: tuple[Example, ...]
    counts: ReadCounts
    labels: tuple[str, ...]
    scheme: str | None
    sha256: str


def read_examples(path: str | Path, labels: Sequence[str] | None = None) -> ReadResult:
    """Read ``.jsonl``, ``.conll``, ``.txt``, ``.csv``, ``.tsv`` or ``.parquet``, gzipped or not.

    Args:
        path: the file.
        labels: tag names (with ``O``) in the order of their numbers, for integer tags.

    Raises:
        PreconditionError: the file does not exist or cannot be opened; pyarrow is missing.
        DataError: the suffix is not known, or the first thing in the file that cannot be read,
            with file and line.
    """
    path = Path(path)
    kind = file_format(path)
    if kind is None:
        raise DataError(
            f"{path}: the format of the file is not known by its name",
            hint=f"use one of {', '.join(FORMATS)}, each optionally with .gz",
        )
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        raise PreconditionError(f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise PreconditionError(
            f"{path} cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from None
    content = _decompressed(stored, str(path)) if path.suffix == ".gz" else stored
    return assemble(
        _rows(kind, content, str(path), labels), sha256=hashlib.sha256(stored).hexdigest()
    )


def file_format(path: Path) -> str | None:
    """Return the format that a file name states, or None."""
    name = path.name.casefold().removesuffix(".gz")
    return FORMATS.get(Path(name).suffix)


def _decompressed(stored: bytes, source: str) -> bytes:
    try:
        return gzip.decompress(stored)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{source}: the gzip file is damaged ({error})", hint="fetch or write it again"
        ) from None


def _rows(kind: str, content: bytes, source: str, labels: Sequence[str] | None) -> Iterable[Row]:
    if kind == "jsonl":
        return read_json_lines(content, source, labels)
    if kind == "parquet":
        return read_parquet(content, source, labels)
    if kind == "conll":
        return read_conll(content, source)
    if kind == "text":
        return read_text(content, source)
    return read_delimited(content, source, "\t" if kind == "tsv" else ",")


def assemble(rows: Iterable[Row], sha256: str) -> ReadResult:
    """Turn rows into inputs and count them.

    Args:
        rows: sentences in order.
        sha256: hash of what they were read from.

    Raises:
        DataError: a row's labels do not fit its text.
    """
    kept: list[Row] = []
    examples: list[Example | None] = []  # None: tagged, made together below
    empty = 0
    for row in rows:
        example = from_text(row.text, row.where, row.mentions) if isinstance(row, TextRow) else None
        if not (row.tokens if isinstance(row, TaggedRow) else example and example.tokens):
            empty += 1
            continue
        kept.append(row)
        examples.append(example)
    tagged = from_tagged([row for row in kept if isinstance(row, TaggedRow)])
    rest = iter(tagged.examples)
    complete = tuple(next(rest) if example is None else example for example in examples)
    counts = ReadCounts(
        empty=empty,
        converted_tags=tagged.num_converted,
        repaired_tags=tagged.num_repaired,
        **count_examples(complete),
    )
    seen = {span.type for example in complete for span in example.gold or ()}
    return ReadResult(complete, counts, tuple(sorted(seen)), tagged.scheme, sha256)


def count_examples(examples: Sequence[Example]) -> dict[str, int]:
    """Return sentences, duplicates, labelled, without_mention and mentions of inputs."""
    gold = [example.gold for example in examples if example.gold is not None]
    return {
        "sentences": len(examples),
        "duplicates": len(examples) - len({example.text for example in examples}),
        "labelled": len(gold),
        "without_mention": sum(not spans for spans in gold),
        "mentions": sum(map(len, gold)),
    }
