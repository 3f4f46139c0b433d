"""Building checked inputs from texts, tokens, mentions and tags, whatever file they came from."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ccrl_cli.core.alignment import Aligner, bio_to_spans, mention_key, spans_to_bio, tokenize
from ccrl_cli.errors import DataError
from ccrl_cli.records import Example, Span

TAG = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
"""A tag that carries a position: IOB, IOBES or BILOU prefix, a dash, a type."""

_TO_IOBES = {"L": "E", "U": "S", "M": "I"}


@dataclass(frozen=True, slots=True)
class Mention:
    """A gold mention of a text: surface, type, and its half-open character range if known."""

    text: str
    type: str
    start: int | None = None
    end: int | None = None


def text_lines(content: bytes, source: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a UTF-8 file with their numbers from 1.

    Lines end at byte ``\n`` alone; one ``\r`` before it and a byte order mark at the beginning
    belong to the format, everything else to the text. What follows the last line break is a line
    only if it is not empty.

    Raises:
        DataError: bytes are not UTF-8 (UTF-8 encoded lone surrogates are accepted).
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{source}:1: the file is UTF-16, not UTF-8", hint="save it as UTF-8")
    lines = content.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            raise DataError(
                f"{source}:{number}: byte 0x{byte:02x} at position {error.start + 1} is not UTF-8",
                hint="save the file as UTF-8",
            ) from None


def from_tokens(tokens: Iterable[str], gold: Iterable[Span] | None = None) -> Example:
    """Return the input whose text is the tokens joined by one space."""
    tokens = tuple(tokens)
    offsets: list[tuple[int, int]] = []
    position = 0
    for token in tokens:
        offsets.append((position, position + len(token)))
        position += len(token) + 1
    spans = None if gold is None else tuple(sorted(gold))
    return Example(" ".join(tokens), tokens, tuple(offsets), spans)


def from_text(text: str, where: str, mentions: Sequence[Mention] | None = None) -> Example:
    """Return the input of an untokenised text.

    Args:
        text: the sentence, kept as it is.
        where: file and line, for messages.
        mentions: gold mentions, or None if unlabelled. Those with a character range go first;
            the others are placed left to right, longest first, on what is free.

    Raises:
        DataError: a range does not hold its mention, crosses a token or another mention, or a
            mention is not in the text as often as it is listed.
    """
    tokens, offsets = tokenize(text)
    example = Example(text, tokens, offsets)
    if mentions is None:
        return example
    spans = _ranged_spans(example, [m for m in mentions if m.start is not None], where)
    return _with_gold(
        example, _placed_spans(example, [m for m in mentions if m.start is None], spans, where)
    )


def _with_gold(example: Example, spans: Iterable[Span]) -> Example:
    return replace(example, gold=tuple(sorted(spans)))


def _ranged_spans(example: Example, mentions: Sequence[Mention], where: str) -> list[Span]:
    starts = {start: index for index, (start, _) in enumerate(example.offsets)}
    ends = {end: index + 1 for index, (_, end) in enumerate(example.offsets)}
    spans: list[Span] = []
    for mention in mentions:
        if mention.start is None or mention.end is None:
            raise DataError(
                f"{where}: mention {mention.text!r} has a start or an end, not both",
                hint="give both character positions or neither",
            )
        if (
            not 0 <= mention.start < mention.end <= len(example.text)
            or example.text[mention.start : mention.end] != mention.text
        ):
            raise DataError(
                f"{where}: the text at {mention.start}:{mention.end} is not {mention.text!r}",
                hint="start and end count characters from 0, the end is exclusive",
            )
        start, end = starts.get(mention.start), ends.get(mention.end)
        if start is None or end is None:
            raise DataError(
                f"{where}: mention {mention.text!r} ({mention.type}) does not start and end on"
                f" token boundaries of {_around(example.text, mention.start, mention.end)!r}",
                hint="mark whole words, or give the sentence as tokens and ner_tags",
            )
        spans.append(Span(start, end, mention.type))
    for left, right in pairwise(sorted(spans)):
        if left.end > right.start:
            raise DataError(
                f"{where}: mentions {example.span_text(left)!r} and {example.span_text(right)!r}"
                " overlap",
                hint="only flat annotation is supported: keep one of the two",
            )
    return spans


def _around(text: str, start: int, end: int) -> str:
    return text[max(0, start - 10) : end + 10]


def _placed_spans(
    example: Example, mentions: Sequence[Mention], taken: list[Span], where: str
) -> list[Span]:
    used = sum((1 << span.end) - (1 << span.start) for span in taken)
    places = Aligner(example).place([mention_key(mention.text) for mention in mentions], used)
    spans = list(taken)
    for mention, place in zip(mentions, places, strict=True):
        if place is None:
            raise DataError(
                f"{where}: mention {mention.text!r} ({mention.type}) is not in the text as whole"
                " words, or is listed more often than it occurs",
                hint="copy mentions from the text exactly, or give start and end",
            )
        spans.append(Span(place[0], place[1], mention.type))
    return spans


# --- tags ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaggedRow:
    """One sentence with its tags as the file states them, or None if it has none."""

    where: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class TextRow:
    """One untokenised sentence with its gold mentions, or None if unlabelled."""

    where: str
    text: str
    mentions: tuple[Mention, ...] | None = None


Row = TextRow | TaggedRow


@dataclass(frozen=True, slots=True)
class TaggedExamples:
    """Inputs made from tagged rows.

    Attributes:
        examples: one a row.
        scheme: ``IOB2``, ``IOB1``, ``IOBES`` (BILOU too), ``IO``, or None without any mention.
        num_converted: tags that differ in IOB2 because the file uses another scheme.
        num_repaired: tags that break the file's own scheme, read as beginning a mention.
    """

    examples: tuple[Example, ...]
    scheme: str | None = None
    num_converted: int = 0
    num_repaired: int = 0


def from_tagged(rows: Sequence[TaggedRow]) -> TaggedExamples:
    """Turn tagged sentences of one file into inputs; the scheme is found from all of them.

    Tags without any prefix are IO: a run of one type is one mention. In a file where ``B-`` only
    ever stands between two mentions of one type, the scheme is IOB1.

    Raises:
        DataError: the numbers of tags and tokens differ, a tag is empty, or tags with and without
            prefix are mixed.
    """
    for row in rows:
        if row.tags is not None and len(row.tags) != len(row.tokens):
            raise DataError(
                f"{row.where}: {len(row.tokens)} tokens but {len(row.tags)} tags",
                hint="give one tag a token",
            )
        if row.tags is not None and not all(row.tags):
            raise DataError(
                f"{row.where}: the tag of token {row.tags.index('') + 1} is empty",
                hint="write O for a token outside any mention",
            )
    scheme = _scheme(rows)
    examples: list[Example] = []
    converted = repaired = 0
    for row in rows:
        if row.tags is None:
            examples.append(from_tokens(row.tokens))
            continue
        tags = [_normal(tag, scheme) for tag in row.tags]
        spans = bio_to_spans(tags)
        examples.append(from_tokens(row.tokens, spans))
        standard = spans_to_bio(spans, len(tags))
        if scheme in ("IOB2", "IOBES"):
            pairs = zip(tags, standard, strict=True)
            repaired += sum(_position(tag) != _position(due) for tag, due in pairs)
        if scheme != "IOB2":
            converted += sum(a != b for a, b in zip(row.tags, standard, strict=True))
    return TaggedExamples(tuple(examples), scheme, converted, repaired)


def _scheme(rows: Sequence[TaggedRow]) -> str | None:
    prefixes: set[str] = set()
    bare: TaggedRow | None = None
    marked: TaggedRow | None = None
    opening = False  # a B- that does not follow a mention of its type: no IOB1 file has one
    for row in rows:
        previous = "O"
        for tag in row.tags or ():
            match = TAG.fullmatch(tag)
            if match:
                prefixes.add(match.group(1))
                marked = marked or row
                opening |= match.group(1) == "B" and previous != match.group(2)
            elif tag != "O":
                bare = bare or row
            previous = match.group(2) if match else "O"
    if bare and marked:
        raise DataError(
            f"{bare.where}: a tag without prefix, although {marked.where} has prefixes such as B-",
            hint="write every tag as O, B-type or I-type",
        )
    if bare:
        return "IO"
    if prefixes - {"B", "I"}:
        return "IOBES"
    if not prefixes:
        return None
    return "IOB2" if opening else "IOB1"


def _normal(tag: str, scheme: str | None) -> str:
    """Return a tag as ``bio_to_spans`` reads it."""
    if tag == "O":
        return tag
    if scheme == "IO":
        return f"I-{tag}"
    return f"{_TO_IOBES.get(tag[0], tag[0])}{tag[1:]}"


def _position(tag: str) -> str:
    return {"S": "B", "E": "I"}.get(tag[0], tag[0])
