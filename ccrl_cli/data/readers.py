"""Reading an input file of any known format, and counting what was found on the way."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccrl_cli.data.brat import read_brat
from ccrl_cli.data.columns import read_delimited, read_text
from ccrl_cli.data.conll import read_conll
from ccrl_cli.data.examples import RejectedRow, Row, TaggedRow, TextRow, from_tagged, from_text
from ccrl_cli.data.rows import read_arrow, read_json, read_json_lines, read_parquet
from ccrl_cli.data.spacy_docs import read_spacy
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.records import Example

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".conll": "conll",
    ".conllu": "conll",
    ".bio": "conll",
    ".bio2": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bioes": "conll",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".spacy": "spacy",
    ".ann": "brat",
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
        rejected: sentences that their annotator set aside; left out.
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
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The sentences of one file, in its order.

    Attributes:
        examples: inputs, duplicates included.
        counts: what was found.
        labels: types seen, sorted.
        scheme: tag scheme found, None if the file has no tags.
        sha256: hash of the file as it is stored (compressed, if it is).
        forms: names of the formats of other tools that were recognised.
    """

    examples: tuple[Example, ...]
    counts: ReadCounts
    labels: tuple[str, ...]
    scheme: str | None
    sha256: str
    forms: tuple[str, ...] = ()


def read_examples(path: str | Path, labels: Sequence[str] | None = None) -> ReadResult:
    """Read a file of any format in `FORMATS`, gzipped or not; see the guide for their shapes.

    Args:
        path: the file.
        labels: tag names (with ``O``) in the order of their numbers, for integer tags.

    Raises:
        PreconditionError: the file does not exist or cannot be opened; a package is missing.
        DataError: the suffix is not known, the file holds no sentence, or the first thing in it
            that cannot be read, with file and line.
    """
    path = Path(path)
    _known_format(path)
    stored = read_stored(path)
    result = assemble(read_rows(path, stored, labels), sha256=hashlib.sha256(stored).hexdigest())
    if not result.examples:
        raise DataError(
            f"{path} holds no sentence"
            + (f" ({result.counts.empty} empty rows)" if result.counts.empty else ""),
            hint="check that this is the file you mean, and that it was written whole",
        )
    return result


def read_stored(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        PreconditionError: it does not exist, is no regular file, or cannot be opened.
    """
    try:
        if not path.is_file():
            path.stat()
            raise PreconditionError(
                f"{path} cannot be read (it is no regular file)", hint="give a file"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise PreconditionError(f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise PreconditionError(
            f"{path} cannot be read ({error.strerror})", hint="check the path and its permissions"
        ) from None


def read_rows(
    path: Path,
    stored: bytes,
    labels: Sequence[str] | None = None,
    *,
    predicted: bool = False,
) -> Iterable[Row]:
    """Return the rows of a file as it states them.

    Args:
        path: the file; its name states the format.
        stored: its bytes.
        labels: tag names in the order of their numbers, for integer tags.
        predicted: take what a system predicted before anything else; see ``shapes``.

    Raises:
        DataError: see `read_examples`.
    """
    kind = _known_format(path)
    content = decompressed(stored, path)
    source = str(path)
    if kind == "jsonl":
        return read_json_lines(content, source, labels, predicted=predicted)
    if kind == "json":
        return read_json(content, source, labels, predicted=predicted)
    if kind == "parquet":
        return read_parquet(content, source, labels)
    if kind == "arrow":
        return read_arrow([(source, content)], labels)
    if kind == "spacy":
        return read_spacy(content, source)
    if kind == "conll":
        return read_conll(content, source)
    beside = path.with_suffix(".ann" if kind == "text" else ".txt")
    if kind == "brat" or (kind == "text" and beside.is_file()):
        return read_brat(path if kind == "brat" else beside, beside if kind == "brat" else path)
    if kind == "text":
        return read_text(content, source)
    return read_delimited(content, source, "\t" if kind == "tsv" else ",")


def file_format(path: Path) -> str | None:
    """Return the format that a file name states, or None."""
    name = path.name.casefold().removesuffix(".gz")
    return FORMATS.get(Path(name).suffix)


def _known_format(path: Path) -> str:
    kind = file_format(path)
    if kind is None:
        raise DataError(
            f"{path}: the format of the file is not known by its name",
            hint=f"use one of {', '.join(FORMATS)}, each optionally with .gz",
        )
    return kind


def decompressed(stored: bytes, path: Path) -> bytes:
    """Return the content of a file, unpacked if its name ends in ``.gz``.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix.casefold() != ".gz":
        return stored
    try:
        return gzip.decompress(stored)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip file is damaged ({error})", hint="fetch or write it again"
        ) from None


def assemble(rows: Iterable[Row], sha256: str) -> ReadResult:
    """Turn rows into inputs and count them.

    Args:
        rows: sentences in order.
        sha256: hash of what they were read from.

    Raises:
        DataError: a row's labels do not fit its text.
    """
    kept: list[TextRow | TaggedRow] = []
    examples: list[Example | None] = []  # None: tagged, made together below
    empty = rejected = 0
    for row in rows:
        if isinstance(row, RejectedRow):
            rejected += 1
            continue
        example = from_text(row.text, row.where, row.mentions) if isinstance(row, TextRow) else None
        spoken = row.tokens if isinstance(row, TaggedRow) else example.tokens if example else ()
        if not any(map(str.strip, spoken)):
            empty += 1
            continue
        kept.append(row)
        examples.append(example)
    tagged = from_tagged([row for row in kept if isinstance(row, TaggedRow)])
    rest = iter(tagged.examples)
    complete = tuple(next(rest) if example is None else example for example in examples)
    counts = ReadCounts(
        empty=empty,
        rejected=rejected,
        converted_tags=tagged.num_converted,
        repaired_tags=tagged.num_repaired,
        **count_examples(complete),
    )
    seen = {span.type for example in complete for span in example.gold or ()}
    forms = dict.fromkeys(row.form for row in kept if row.form)
    return ReadResult(
        complete, counts, tuple(sorted(seen)), tagged.scheme, sha256, tuple(sorted(forms))
    )


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
