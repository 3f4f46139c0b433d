"""Mentions to token spans, and token spans to BIO tags and back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from ccrl_cli.records import Alignment, Entity, Example, Span

# Scripts written without spaces (Thai to Khmer, kana, Han): each character is a token.
_UNSPACED = (
    "\u0e00-\u0e4f\u0e80-\u0ecf\u1000-\u109f\u1780-\u17df"
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = rf"[^\W{_UNSPACED}]"
_TOKEN = re.compile(rf"\d++(?:[.,'’\-]\d++)*+{_WORD}*+|{_WORD}++|\S")
_JOINERS = "\u200c\u200d"
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]+"
)
"""Default_Ignorable_Code_Point of the Unicode Character Database: invisible by definition."""

Mention = tuple[str, str]
"""Key of the surface text (see :func:`mention_key`) and type identifier."""

Place = tuple[int, int, int]
"""Token range [start, end) and the bit mask of its tokens."""


def tokenize(text: str) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """Split a text into tokens for inputs that come without any.

    A token is a number with its inner marks (``3.5``, ``1,000``, ``2019-20``, ``1'000``) and any
    letters glued to it (``4th``), a run of letters, or one other visible character. Hyphens and
    apostrophes between letters split, so that ``Obama`` in ``Obama's`` and ``York`` in
    ``York-based`` can be mentions. Combining marks stay with their letter; characters of scripts
    written without spaces are tokens of their own.

    Returns:
        T tokens and their T half-open character ranges, in order, covering every character that
        is not whitespace.
    """
    offsets = [match.span() for match in _TOKEN.finditer(text)]
    if not text.isascii():
        offsets = _join_marks(text, offsets)
    return tuple(text[start:end] for start, end in offsets), tuple(offsets)


def _join_marks(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Glue marks and joiners to the token before, and letters after the mark of a letter.

    A mark belongs to what it follows: letters after the mark of something else, such as an emoji,
    begin a token.
    """
    joined: list[tuple[int, int]] = []
    for start, end in offsets:
        if joined and joined[-1][1] == start:
            first, last = text[start], text[start - 1]
            if is_mark(first) or (is_mark(last) and _continues(text, start)):
                joined[-1] = (joined[-1][0], end)
                continue
        joined.append((start, end))
    return joined


def is_mark(character: str) -> bool:
    """Return whether a character belongs to the one before: marks, joiners, skin tones."""
    return (
        character in _JOINERS
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or unicodedata.category(character)[0] == "M"
    )


def _continues(text: str, start: int) -> bool:
    """Return whether a character goes on with what the marks before it follow."""
    base = start - 1
    while base > 0 and is_mark(text[base]):
        base -= 1
    letters = text[base].isalpha(), re.match(_WORD, text[start]) is not None
    return all(letters) or (text[start - 1] in _JOINERS and not any(letters))


@lru_cache(maxsize=1 << 14)
def mention_key(text: str) -> str:
    """Return the form under which mentions are compared: what is visible, canonically composed.

    Two texts have one key exactly when they are equal up to whitespace, characters that are
    invisible by definition (soft hyphens, joiners, direction marks, variation selectors) and
    canonical (NFC) equivalence; case counts. The decomposed form is used because, unlike the
    composed one, the form of a sequence of tokens is the sequence of their forms.
    """
    condensed = "".join(text.split())
    if condensed.isascii():
        return condensed
    return unicodedata.normalize("NFD", _IGNORABLE.sub("", condensed))


_GREEK_ACCENT = re.compile("([\u0370-\u03ff])[\u0300\u0301]")
_QUOTES_AND_DASHES = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\uff07`\u00b4", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\uff02", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d", "-"),
    }
)


def folded_key(text: str) -> str:
    """Return :func:`mention_key` without regard to case and to the shape of quotes and dashes."""
    return fold_case(mention_key(text).translate(_QUOTES_AND_DASHES))


def fold_case(text: str) -> str:
    """Return a text, decomposed, without regard to case.

    Beyond Unicode's case folding, the dotted capital of Turkish is ``i`` and Greek letters lose
    their accents, as they do in capitals.
    """
    if text.isascii():
        return text.casefold()
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return _GREEK_ACCENT.sub(r"\1", folded.replace("i\u0307", "i"))


def mention_of(entity: Entity) -> Mention:
    """Return the form under which two mentions are one: the key of the text, and the type."""
    return mention_key(entity.text), entity.type


class Aligner:
    """Where the mentions of one input can stand; built once, used for all its completions."""

    def __init__(self, example: Example) -> None:
        """Index an input.

        Args:
            example: text and T tokens with their character ranges.
        """
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._condensed = self._index_ascii(example) or self._index(example)
        self._places: dict[str, tuple[Place, ...]] = {}
        self.num_tokens = len(example.offsets)

    def _index_ascii(self, example: Example) -> str | None:
        """Index a text whose keys are its visible characters, all inside tokens; else None."""
        text = example.text
        pieces = [text[start:end] for start, end in example.offsets]
        condensed = "".join(pieces)
        if not (text.isascii() and condensed == "".join(text.split())):
            return None
        length = 0
        for index, piece in enumerate(pieces):
            if piece:
                self._starts[length] = index
                length += len(piece)
                self._ends[length] = index + 1
        return condensed

    def _index(self, example: Example) -> str:
        """Index any text."""
        pieces: list[str] = []
        length = covered = 0
        for index, (start, end) in enumerate(example.offsets):
            gap = mention_key(example.text[covered:start])
            token = mention_key(example.text[start:end])
            covered = end
            pieces += (gap, token)
            length += len(gap)
            if token:
                self._starts[length] = index
                length += len(token)
                self._ends[length] = index + 1
        return "".join(pieces)

    def places(self, key: str) -> tuple[Place, ...]:
        """Return every place of a mention, left to right; they may overlap each other.

        Args:
            key: the mention as :func:`mention_key` writes it.
        """
        known = self._places.get(key)
        if known is not None:
            return known
        if not key:
            return ()
        found: list[Place] = []
        position = self._condensed.find(key)
        while position >= 0:
            start, end = self._starts.get(position), self._ends.get(position + len(key))
            if start is not None and end is not None:
                found.append((start, end, (1 << end) - (1 << start)))
            position = self._condensed.find(key, position + 1)
        places = tuple(found)
        if places:  # at most T² keys; what is not found is not kept, so memory stays bounded
            self._places[key] = places
        return places

    def count(self, key: str) -> int:
        """Return how many times a mention can be placed without overlap."""
        used = number = 0
        for _, _, mask in self.places(key):
            if not mask & used:
                used |= mask
                number += 1
        return number

    def place(self, keys: Sequence[str], used: int = 0) -> list[Place | None]:
        """Place mentions: longest first, each at the leftmost place that is free.

        Mentions of equal length go in the order given.

        Args:
            keys: n mentions as :func:`mention_key` writes them.
            used: bit mask of the tokens that are taken already.

        Returns:
            n places; None where a mention is not in the text or all its places are taken.
        """
        placed: list[Place | None] = [None] * len(keys)
        # A place that is taken stays taken, so one iterator a mention never looks back.
        open_places = {key: iter(self.places(key)) for key in keys}
        for index in sorted(range(len(keys)), key=lambda i: -len(keys[i])):
            for place in open_places[keys[index]]:
                if not place[2] & used:
                    used |= place[2]
                    placed[index] = place
                    break
        return placed

    def align(self, entities: Iterable[Entity]) -> Alignment:
        """Place each mention on whole tokens: longest first, leftmost free place, no overlap.

        Mentions of equal length go in the order written. Whitespace and Unicode composition do not
        matter, case does. Two mentions of one name take two places. What cannot be placed, because
        no tokens are it or because its places are taken, is hallucinated; ``core.placing`` also
        finds what stands inside a word.

        Returns:
            Spans in text order, and hallucinated mentions in the order written.
        """
        mentions = tuple(entities)
        places = self.place([mention_key(mention.text) for mention in mentions])
        spans: list[Span] = []
        hallucinated: list[Entity] = []
        for mention, place in zip(mentions, places, strict=True):
            if place is None:
                hallucinated.append(mention)
            else:
                spans.append(Span(place[0], place[1], mention.type))
        if len(spans) > 1:
            spans.sort(key=lambda span: span.start)
        return Alignment(tuple(spans), tuple(hallucinated))


def cut_tokens(example: Example, points: Iterable[int]) -> Example:
    """Return the same sentence with its tokens cut at characters that lie inside one.

    Gold spans keep their characters.

    Args:
        example: text, tokens and maybe gold.
        points: character positions; those at the edge of a token, or outside any, change nothing.
    """
    inside = sorted(set(points))
    offsets: list[tuple[int, int]] = []
    first: list[int] = []  # index of the first part of each old token
    cuts = set(example.cuts)
    for start, end in example.offsets:
        first.append(len(offsets))
        own = [point for point in inside if start < point < end]
        cuts.update(own)
        offsets += zip([start, *own], [*own, end], strict=True)
    if len(offsets) == len(example.offsets):
        return example
    first.append(len(offsets))
    gold = example.gold and tuple(Span(first[s.start], first[s.end], s.type) for s in example.gold)
    tokens = tuple(example.text[start:end] for start, end in offsets)
    return Example(example.text, tokens, tuple(offsets), gold, tuple(sorted(cuts)))


def spans_to_bio(spans: Iterable[Span], length: int) -> list[str]:
    """Return the IOB2 tags of non-overlapping spans over ``length`` tokens.

    Raises:
        ValueError: spans are empty, overlap, or leave the sentence.
    """
    ordered = sorted(spans)
    for span in ordered:
        if not 0 <= span.start < span.end <= length:
            raise ValueError(f"{span} is not a range of {length} tokens")
    for left, right in pairwise(ordered):
        if left.end > right.start:
            raise ValueError(f"{left} and {right} overlap")
    tags = ["O"] * length
    for span in ordered:
        tags[span.start] = f"B-{span.type}"
        tags[span.start + 1 : span.end] = [f"I-{span.type}"] * (span.end - span.start - 1)
    return tags


def bio_to_spans(tags: Sequence[str], *, strict: bool = False) -> tuple[Span, ...]:
    """Return the spans that a tag sequence states.

    Lenient (default, the conlleval convention): a stray ``I-`` begins a span, a change of type
    ends one; ``E-`` and ``S-`` of IOBES are understood. Strict: IOB2 as seqeval's
    ``mode="strict"`` reads it, where only ``B-`` begins a span.

    Raises:
        ValueError: a tag is not ``O`` or a known prefix, a dash and a type.
    """
    allowed = "BI" if strict else "BIES"
    spans: list[Span] = []
    start: int | None = None
    previous, current = "O", ""
    for index, (prefix, kind) in enumerate([*(_split(tag, allowed) for tag in tags), ("O", "")]):
        if not (previous in "BI" and prefix in "IE" and kind == current):
            if start is not None:
                spans.append(Span(start, index, current))
            start = index if prefix == "B" or (prefix != "O" and not strict) else None
        previous, current = prefix, kind
    return tuple(spans)


def _split(tag: str, allowed: str) -> tuple[str, str]:
    if tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    if len(prefix) != 1 or prefix not in allowed or not dash or not kind:
        raise ValueError(f"{tag!r} is not O or one of {', '.join(allowed)} with a dash and a type")
    return prefix, kind
