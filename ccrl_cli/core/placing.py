"""Mentions to character ranges of a text: at word boundaries first, else inside a word.

Many languages glue endings and prefixes to names (Korean, Turkish, Hungarian, Finnish, Arabic,
Hebrew, Hindi, German compounds): what stands in the text letter for letter has a place there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ccrl_cli.core.alignment import Aligner, cut_tokens, folded_key, is_mark, mention_key
from ccrl_cli.records import Alignment, Entity, Example, Span

_MOVED = 64
"""Most mentions of one answer for which a shorter mention gives way to a longer one."""

# (folded, rank of the place): exact at words, folded at words, then inside words.
_STAGES = (
    (False, 0),
    (True, 0),
    (False, 1),
    (False, 2),
    (False, 3),
    (True, 1),
    (True, 2),
    (True, 3),
)


@dataclass(frozen=True, slots=True)
class CharRange:
    """Where a mention stands.

    Attributes:
        start: first character.
        end: character after the last one.
        inside: it begins or ends inside a word.
        folded: it differs from the text in case, quotes or dashes.
    """

    start: int
    end: int
    inside: bool = False
    folded: bool = False


def graphemes(text: str) -> list[tuple[int, int]]:
    """Return the half-open ranges of the characters that a reader sees, covering the text.

    Marks, joiners, skin tones and what a joiner joins stay with the character before; pairs of
    regional indicators (flags) and the letters of one Hangul syllable stay together. Follows the
    extended grapheme clusters of UAX #29, but for scripts' own conjuncts, which it also cuts.
    """
    if text.isascii():
        return [(place, place + 1) for place in range(len(text))]
    ranges: list[tuple[int, int]] = []
    flags = 0
    for place, character in enumerate(text):
        flags = flags + 1 if "\U0001f1e6" <= character <= "\U0001f1ff" else 0
        if place and (is_mark(character) or flags % 2 == 0 < flags or _goes_on(text, place)):
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((place, place + 1))
    return ranges


def _goes_on(text: str, place: int) -> bool:
    """Return whether a character that is no mark belongs to the one before."""
    before, character = text[place - 1], text[place]
    if character in "\u0e33\u0eb3":  # Thai and Lao AM, which UAX #29 keeps with its consonant
        return True
    if before == "\u200d":
        return place > 1 and not character.isalpha()
    left, right = _jamo(before), _jamo(character)
    return (
        (left == "L" and right in ("L", "V", "S"))
        or ((left == "V" and right in ("V", "T")) or (left == "T" and right == "T"))
        or (left == "S" and right in ("V", "T"))
    )


def _jamo(character: str) -> str:
    """Return L, V or T for a letter of a Hangul syllable, S for a whole one, else nothing."""
    if "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c":
        return "L"
    if "\u1160" <= character <= "\u11a7" or "\ud7b0" <= character <= "\ud7c6":
        return "V"
    if "\u11a8" <= character <= "\u11ff" or "\ud7cb" <= character <= "\ud7fb":
        return "T"
    return "S" if "\uac00" <= character <= "\ud7a3" else ""


class TextIndex:
    """A text as keys see it, with the way back to its characters.

    Args:
        text: any text.
        key: ``mention_key`` or ``folded_key``.
    """

    def __init__(self, text: str, key: Callable[[str], str] = mention_key) -> None:
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        if text.isascii():
            for place, start in enumerate(i for i, c in enumerate(text) if not c.isspace()):
                self._starts[place] = start
                self._ends[place + 1] = start + 1
            self.condensed = key(text)
            return
        pieces: list[str] = []
        length = 0
        for start, end in graphemes(text):
            piece = key(text[start:end])
            if piece:
                pieces.append(piece)
                self._starts[length] = start
                length += len(piece)
                self._ends[length] = end
        self.condensed = "".join(pieces)

    def find(self, key: str) -> list[tuple[int, int]]:
        """Return the character ranges of a key, left to right; they may overlap each other."""
        found: list[tuple[int, int]] = []
        position = self.condensed.find(key) if key else -1
        while position >= 0:
            start, end = self._starts.get(position), self._ends.get(position + len(key))
            if start is not None and end is not None:
                found.append((start, end))
            position = self.condensed.find(key, position + 1)
        return found

    @cached_property
    def _edges(self) -> tuple[list[int], list[int], dict[int, int], dict[int, int]]:
        starts = {character: place for place, character in self._starts.items()}
        ends = {character: place for place, character in self._ends.items()}
        return sorted(starts), sorted(ends), starts, ends

    def carry(self, start: int, end: int, other: TextIndex) -> tuple[int, int] | None:
        """Return the same visible characters in another text of the same condensed form."""
        starts, ends, start_at, end_at = self._edges
        first, last = bisect_left(starts, start), bisect_right(ends, end)
        if first >= len(starts) or not last:
            return None
        place = other._starts.get(start_at[starts[first]])
        stop = other._ends.get(end_at[ends[last - 1]])
        return None if place is None or stop is None or place >= stop else (place, stop)


class TextPlacer:
    """Where the mentions of one text can stand; built once, used for all answers about it.

    Args:
        example: text and tokens; cuts that gold mentions made inside words are no boundaries.
        fold: also place what differs in case, quotes or dashes alone.
    """

    def __init__(self, example: Example, *, fold: bool = True) -> None:
        self._text = example.text
        self._fold = fold
        self._starts = {start for start, _ in example.offsets} - set(example.cuts)
        self._ends = {end for _, end in example.offsets} - set(example.cuts)

    @cached_property
    def _exact(self) -> TextIndex:
        return TextIndex(self._text)

    @cached_property
    def _folded(self) -> TextIndex:
        return TextIndex(self._text, folded_key)

    def place(
        self, mentions: Sequence[str], taken: Iterable[tuple[int, int]] = ()
    ) -> list[CharRange | None]:
        """Place mentions: longest first, each at the best and then leftmost place that is free.

        Args:
            mentions: n surface texts.
            taken: ranges of the text that are not free.

        Returns:
            n ranges; None where a mention is not in the text or all its places are taken.
        """
        placed: list[CharRange | None] = [None] * len(mentions)
        used = bytearray(len(self._text))
        for start, end in taken:
            used[start:end] = b"\1" * (end - start)
        choices: dict[str, dict[tuple[bool, int], list[tuple[int, int]]]] = {}
        for mention in mentions:
            if mention not in choices:
                choices[mention] = self._choices(mention)
        order = sorted(range(len(mentions)), key=lambda i: -len(mention_key(mentions[i])))
        passed: dict[tuple[str, tuple[bool, int]], int] = {}
        for stage in _STAGES:
            for index in order:
                ranges = choices[mentions[index]].get(stage)
                if placed[index] is not None or not ranges:
                    continue
                # A place that is taken stays taken, so copies of a mention never look back.
                at = passed.get((mentions[index], stage), 0)
                while at < len(ranges) and any(used[slice(*ranges[at])]):
                    at += 1
                passed[mentions[index], stage] = at
                if at < len(ranges):
                    placed[index] = self._take(ranges[at], stage, used)
        if None in placed and len(mentions) <= _MOVED:
            self._make_room(placed, [choices[mention] for mention in mentions], order, used)
        return placed

    def _choices(self, mention: str) -> dict[tuple[bool, int], list[tuple[int, int]]]:
        """Return the places of a mention by stage."""
        choices: dict[tuple[bool, int], list[tuple[int, int]]] = {}
        exact = self._exact.find(mention_key(mention))
        folded = self._folded.find(folded_key(mention)) if self._fold else []
        known = set(exact)
        for start, end in exact:
            choices.setdefault((False, self._rank(start, end)), []).append((start, end))
        for start, end in folded:
            if (start, end) not in known:
                choices.setdefault((True, self._rank(start, end)), []).append((start, end))
        return choices

    def _rank(self, start: int, end: int) -> int:
        """Return 0 for whole words, 1 with an ending glued on, 2 with a prefix, 3 with both."""
        return (start not in self._starts) * 2 + (end not in self._ends)

    def _take(self, place: tuple[int, int], stage: tuple[bool, int], used: bytearray) -> CharRange:
        start, end = place
        used[start:end] = b"\1" * (end - start)
        return CharRange(start, end, inside=stage[1] > 0, folded=stage[0])

    def _make_room(
        self,
        placed: list[CharRange | None],
        choices: Sequence[dict[tuple[bool, int], list[tuple[int, int]]]],
        order: Sequence[int],
        used: bytearray,
    ) -> None:
        """Place what is left where one shorter mention stands that can stand elsewhere too."""
        for index in order:
            if placed[index] is not None:
                continue
            for stage, (start, end) in _listed(choices[index]):
                inner = [
                    i
                    for i, other in enumerate(placed)
                    if other is not None and start <= other.start and other.end <= end
                ]
                if len(inner) != 1 or placed[inner[0]] is None:
                    continue
                blocker = placed[inner[0]]
                assert blocker is not None
                rest = bytearray(used)
                rest[blocker.start : blocker.end] = bytes(blocker.end - blocker.start)
                if blocker.end - blocker.start == end - start or any(rest[start:end]):
                    continue
                rest[start:end] = b"\1" * (end - start)
                for own, (left, right) in _listed(choices[inner[0]]):
                    if not any(rest[left:right]):
                        used[:] = rest
                        placed[inner[0]] = self._take((left, right), own, used)
                        placed[index] = self._take((start, end), stage, used)
                        break
                if placed[index] is not None:
                    break


def _listed(
    choices: dict[tuple[bool, int], list[tuple[int, int]]],
) -> list[tuple[tuple[bool, int], tuple[int, int]]]:
    return [(stage, place) for stage in _STAGES for place in choices.get(stage, ())]


def align_in_text(entities: Iterable[Entity], example: Example) -> tuple[Example, Alignment]:
    """Place each mention on its text, and cut the tokens where a mention needs it.

    Longest first, no overlap, at whole words before places inside one, exact before what differs
    in case, quotes or dashes alone (:class:`TextPlacer`). White space, invisible characters and
    Unicode composition do not matter. Two mentions of one name take two places. What cannot be
    placed, because the text does not hold it or because its places are taken, is hallucinated.

    Returns:
        The sentence with tokens on which every span begins and ends (gold included), and the
        alignment: spans in text order, hallucinated mentions in the order written.
    """
    mentions = tuple(entities)
    places = TextPlacer(example).place([mention.text for mention in mentions])
    found = [(p, m.type) for m, p in zip(mentions, places, strict=True) if p is not None]
    view, spans = on_tokens(example, [(p.start, p.end, kind) for p, kind in found])
    hallucinated = tuple(m for m, p in zip(mentions, places, strict=True) if p is None)
    return view, Alignment(
        spans,
        hallucinated,
        num_inside=sum(place.inside for place, _ in found),
        num_folded=sum(place.folded for place, _ in found),
    )


def view_for(example: Example, entities: Iterable[Entity]) -> Example:
    """Return a sentence with tokens on which every one of some mentions can stand, if it stands.

    What differs from the text in case, quotes or dashes has no place here.
    """
    mentions = [entity.text for entity in entities]
    if None not in Aligner(example).place([mention_key(mention) for mention in mentions]):
        return example
    places = TextPlacer(example, fold=False).place(mentions)
    return cut_tokens(example, (p for place in places if place for p in (place.start, place.end)))


def on_tokens(
    example: Example, ranges: Iterable[tuple[int, int, str]]
) -> tuple[Example, tuple[Span, ...]]:
    """Return the sentence with tokens that fit typed character ranges, and their spans, sorted.

    Args:
        example: the sentence.
        ranges: start, end and type; each holds a visible character.

    Raises:
        ValueError: a range is outside the text, empty, or holds no visible character.
    """
    wanted = list(ranges)
    view = cut_tokens(example, (point for start, end, _ in wanted for point in (start, end)))
    starts = [start for start, _ in view.offsets]
    ends = [end for _, end in view.offsets]
    spans = []
    for start, end, kind in wanted:
        first, last = bisect_left(starts, start), bisect_right(ends, end)
        if not 0 <= start < end <= len(view.text) or first >= last:
            raise ValueError(f"{start}:{end} is no range of {view.text!r}")
        spans.append(Span(first, last, kind))
    return view, tuple(sorted(spans))
