"""Long texts in pieces that a model of sentences can read."""

from __future__ import annotations

import re

_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’)\]]*+(?:\s+|(?<=[。！？]))|\n+")
_SPACE = re.compile(r"\s+")


def split_text(text: str, max_characters: int) -> tuple[tuple[int, int], ...]:
    """Cut a text into ranges of at most `max_characters`, best at a sentence end, else at a space.

    A run without any space is cut at the limit. The ranges are in order, cover every character,
    and a text that is short enough is one range; the empty text has none.

    Args:
        text: any text.
        max_characters: longest piece, at least 1.

    Raises:
        ValueError: the limit is below 1.
    """
    if max_characters < 1:
        raise ValueError(f"a piece of {max_characters} characters holds nothing")
    ranges: list[tuple[int, int]] = []
    start = 0
    while len(text) - start > max_characters:
        end = _cut(text, start, start + max_characters)
        ranges.append((start, end))
        start = end
    if start < len(text):
        ranges.append((start, len(text)))
    return tuple(ranges)


def _cut(text: str, start: int, limit: int) -> int:
    """Return the best end of a piece: the last break of the best kind inside the range."""
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [match.end() for match in pattern.finditer(text, start, limit)]
        if ends:
            return ends[-1]
    return limit
