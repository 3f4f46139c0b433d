"""Building checked inputs from texts, tokens, mentions and tags, whatever file they came from."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ccrl_cli.core.alignment import bio_to_spans, mention_key, spans_to_bio, tokenize
from ccrl_cli.core.placing import TextPlacer, on_tokens
from ccrl_cli.data.joining import join_tokens, lay_tokens, single_characters, states_blanks
from ccrl_cli.errors import DataError
from ccrl_cli.records import Example, Span

TAG = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
"""A tag that carries a position: IOB, IOBES or BILOU prefix, a dash, a type."""

_SPELLINGS = (
    (re.compile(r"([bieslum])-(.+)", re.DOTALL), (1, 2)),
    (re.compile(r"(.+)-([BIESLUM])", re.DOTALL), (2, 1)),
    (re.compile(r"([BIESLUM])_(.+)", re.DOTALL), (1, 2)),
)
"""Other spellings of a tag in use: lower-case prefixes, suffixes, an underscore."""

_TO_IOBES = {"L": "E", "U": "S", "M": "I"}


@dataclass(frozen=True, slots=True)
class Mention:
    """A gold mention of a text: surface, type, and its half-open character range if known.

    The surface is None where a file states the range alone.
    """

    text: str | None
    type: str
    start: int | None = None
    end: int | None = None


def text_lines(content: bytes, source: str) -> Iterator[tuple[int, str]]:
    r"""Yield the lines of a UTF-8 file with their numbers from 1.

    Lines end at byte ``\n`` alone; one ``\r`` before it and a byte order mark at the beginning
    belong to the format, everything else to the text. What follows the last line break is a line
    only if it is not empty.

    Raises:
        DataError: bytes are not UTF-8 (UTF-8 encoded lone surrogates are accepted), or carriage
            returns alone end the lines.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{source}:1: the file is UTF-16, not UTF-8", hint="save it as UTF-8")
    alone = content.rstrip(b"\r\n").count(b"\r") - content.count(b"\r\n")
    if alone > content.count(b"\n"):
        raise DataError(
            f"{source}:1: lines end in carriage returns alone", hint="save it with line feeds"
        )
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
    """Return the input whose text is the tokens, joined as their script is written."""
    return _laid(join_tokens(tuple(tokens)), tuple(tokens), gold)


def _laid(
    laid: tuple[str, tuple[tuple[int, int], ...]],
    tokens: tuple[str, ...],
    gold: Iterable[Span] | None,
) -> Example:
    """Return the input of tokens that are laid on a text; white space is no token."""
    text, offsets = laid
    if all(token.strip() for token in tokens):
        texts = tuple(text[start:end] for start, end in offsets)
        return Example(text, texts, offsets, None if gold is None else tuple(sorted(gold)))
    kept = [(a, b) for a, b in offsets if text[a:b].strip()]
    bare = Example(text, tuple(text[a:b] for a, b in kept), tuple(kept))
    return bare if gold is None else _on_characters(bare, offsets, gold)


def _on_characters(
    bare: Example, offsets: Sequence[tuple[int, int]], gold: Iterable[Span]
) -> Example:
    """Return an input with the spans that the given offsets of its text state."""
    ranges = [(offsets[s.start][0], offsets[s.end - 1][1], s.type) for s in gold]
    view, spans = on_tokens(bare, [r for r in ranges if bare.text[r[0] : r[1]].strip()])
    return replace(view, gold=spans)


def from_text(text: str, where: str, mentions: Sequence[Mention] | None = None) -> Example:
    """Return the input of an untokenised text.

    Args:
        text: the sentence, kept as it is.
        where: file and line, for messages.
        mentions: gold mentions, or None if unlabelled. Ranges are taken as they stand and cut the
            tokens where they must; the others are placed longest first on what is free, on whole
            words before places inside one.

    Raises:
        DataError: a range does not hold its mention or overlaps another, or a mention is not in
            the text as often as it is listed.
    """
    example = Example(text, *tokenize(text))
    if mentions is None:
        return example
    ranges = list(
        dict.fromkeys(checked_range(text, m, where) for m in mentions if m.start is not None)
    )
    ranges.sort()
    for left, right in pairwise(ranges):
        if left[1] > right[0]:
            raise DataError(
                f"{where}: mentions {text[left[0] : left[1]]!r} and {text[right[0] : right[1]]!r}"
                " overlap",
                hint="only flat annotation is supported: keep one of the two",
            )
    loose = [m for m in mentions if m.start is None]
    if loose:
        ranges += _placed(example, loose, ranges, where)
    view, spans = on_tokens(example, ranges)
    return replace(view, gold=spans)


def checked_range(text: str, mention: Mention, where: str) -> tuple[int, int, str]:
    """Return start, end and type of a mention with a range.

    Raises:
        DataError: the range does not hold the mention.
    """
    start, end = mention.start, mention.end
    if start is None or end is None:
        raise DataError(
            f"{where}: mention {mention.text!r} has a start or an end, not both",
            hint="give both character positions or neither",
        )
    held = text[start:end] if 0 <= start < end <= len(text) else ""
    if not held.strip() or (mention.text is not None and not _same(held, mention.text)):
        what = f"not {mention.text!r}" if mention.text is not None else "no visible text"
        raise DataError(
            f"{where}: the text at {start}:{end} is {what}",
            hint="start and end count characters from 0, the end is exclusive",
        )
    return start, end, mention.type


def _same(held: str, stated: str) -> bool:
    return held == stated or mention_key(held) == mention_key(stated) != ""


def _placed(
    example: Example,
    mentions: Sequence[Mention],
    ranges: Sequence[tuple[int, int, str]],
    where: str,
) -> list[tuple[int, int, str]]:
    """Return the ranges of mentions without one."""
    placer = TextPlacer(example, fold=False)
    taken = [(start, end) for start, end, _ in ranges]
    places = placer.place([mention.text or "" for mention in mentions], taken)
    found = []
    for mention, place in zip(mentions, places, strict=True):
        if place is None:
            raise DataError(
                f"{where}: mention {mention.text!r} ({mention.type}) is not in the text, or is"
                " listed more often than it occurs",
                hint="copy mentions from the text exactly, or give start and end",
            )
        found.append((place.start, place.end, mention.type))
    return found


# --- tags ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaggedRow:
    """One sentence with its tags as the file states them, or None if it has none.

    Attributes:
        where: file and line, for messages.
        tokens: T tokens.
        tags: T tags, or None.
        text: the sentence, if the file states it beside the tokens: they are laid on it.
        form: name of the format.
    """

    where: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class TextRow:
    """One untokenised sentence with its gold mentions, or None if unlabelled."""

    where: str
    text: str
    mentions: tuple[Mention, ...] | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A sentence that its annotator set aside (``answer`` of Prodigy, cancelled tasks)."""

    where: str


Row = TextRow | TaggedRow | RejectedRow


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
    rows = spell_tags(rows)
    scheme = _scheme(rows)
    lay = _Layer(rows)
    examples: list[Example] = []
    converted = repaired = 0
    for row in rows:
        if row.tags is None:
            examples.append(lay(row, None))
            continue
        tags = [_normal(tag, scheme) for tag in row.tags]
        spans = bio_to_spans(tags)
        examples.append(lay(row, spans))
        standard = spans_to_bio(spans, len(tags))
        if scheme in ("IOB2", "IOBES"):
            pairs = zip(tags, standard, strict=True)
            repaired += sum(_position(tag) != _position(due) for tag, due in pairs)
        if scheme != "IOB2":
            converted += sum(a != b for a, b in zip(row.tags, standard, strict=True))
    return TaggedExamples(tuple(examples), scheme, converted, repaired)


class _Layer:
    """Lays the tokens of one file's rows on their text, or joins them as the file is written."""

    def __init__(self, rows: Iterable[TaggedRow]) -> None:
        bare = [row.tokens for row in rows if row.text is None]
        self._characters = single_characters(bare)
        self._explicit = self._characters or states_blanks(bare)

    def __call__(self, row: TaggedRow, gold: Sequence[Span] | None) -> Example:
        if row.text is not None:
            offsets = lay_tokens(row.tokens, row.text)
            if offsets is None and gold is None:
                return from_text(row.text, row.where)
            if offsets is None:
                raise DataError(
                    f"{row.where}: the tokens do not spell the text {_short(row.text)!r}",
                    hint="leave out the text or the tokens, or correct the one that is wrong",
                )
            return _laid((row.text, offsets), row.tokens, gold)
        laid = join_tokens(row.tokens, explicit=self._explicit)
        if not self._characters:
            return _laid(laid, row.tokens, gold)
        text, offsets = laid
        bare = Example(text, *tokenize(text))
        return bare if gold is None else _on_characters(bare, offsets, gold)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def spell_tags(rows: Sequence[TaggedRow]) -> list[TaggedRow]:
    """Return rows with the tags of a file that spells them otherwise as B-type, I-type and O.

    A file's tags are changed if all but O are spelled in the same other way.
    """
    kinds = {tag for row in rows for tag in row.tags or ()} - {"O", "o"}
    for pattern, (prefix, kind) in _SPELLINGS:
        found = {tag: match for tag in kinds if (match := pattern.fullmatch(tag))}
        if kinds and len(found) == len(kinds):
            names = {tag: f"{m[prefix].upper()}-{m[kind]}" for tag, m in found.items()}
            names["o"] = "O"
            return [
                row
                if row.tags is None
                else replace(row, tags=tuple(names.get(t, t) for t in row.tags))
                for row in rows
            ]
    return list(rows)


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
        _check_bare(rows, bare)
        return "IO"
    if prefixes - {"B", "I"}:
        return "IOBES"
    if not prefixes:
        return None
    return "IOB2" if opening else "IOB1"


_TYPE_LIKE = re.compile(r"[^\W\d_][^\s]*(?: [^\s]+){0,4}")


def _check_bare(rows: Sequence[TaggedRow], bare: TaggedRow) -> None:
    """Raise DataError if tags without any prefix are no types of mentions (IO)."""
    kinds = {tag for row in rows for tag in row.tags or ()}
    shown = ", ".join(sorted(kinds - {"O"})[:5])
    if kinds <= {"B", "I", "O", "E", "S", "L", "U"}:
        raise DataError(
            f"{bare.where}: the tags {shown} have positions and no type",
            hint="write the type's name behind each: B-disease, I-disease, O",
        )
    odd = next((kind for kind in sorted(kinds) if not _TYPE_LIKE.fullmatch(kind)), None)
    if "O" not in kinds or odd is not None:
        raise DataError(
            f"{bare.where}: what stands in the place of tags is none ({odd or shown}): tags without"
            " a prefix such as B- are read as types only where some are O",
            hint="write every tag as O, B-type or I-type, or leave the tags out",
        )


def _normal(tag: str, scheme: str | None) -> str:
    """Return a tag as ``bio_to_spans`` reads it."""
    if tag == "O":
        return tag
    if scheme == "IO":
        return f"I-{tag}"
    return f"{_TO_IOBES.get(tag[0], tag[0])}{tag[1:]}"


def _position(tag: str) -> str:
    return {"S": "B", "E": "I"}.get(tag[0], tag[0])
