"""Long texts in pieces that a model of sentences can read."""

from __future__ import annotations

import re
from bisect import bisect_right

from ccrl_cli.core.placing import graphemes

# Stops of scripts that put no blank behind them, or that are followed by one.
_STOPS = "。！？｡．۔॥।။៕៖᠃።፧፨꧉᱿"
_COMMAS = "，、；：､﹐﹑﹔၊،؛፣፤፥᠂"
_CLOSERS = "\"'”’)\\]」』）】》〉"
_BREAKS = (
    re.compile(rf"[.!?…؟][{_CLOSERS}]*+\s+|[{_STOPS}][{_CLOSERS}]*+\s*+|\n+"),
    re.compile(rf"[{_COMMAS}][{_CLOSERS}]*+\s*+|[,;:]\s+"),
    re.compile(r"\s+"),
)
#: Characters that two pieces share where a text had to be cut at no break at all.
OVERLAP = 40


def split_text(text: str, max_characters: int) -> tuple[tuple[int, int], ...]:
    """Cut a text into ranges of at most `max_characters`: at stops, else commas, else spaces.

    The stops and commas of many scripts count. A run without any is cut between two characters as
    a reader sees them, and the next range begins up to `OVERLAP` characters (a quarter of the
    limit at most) before the cut, so that a name there is whole in one of the two. The ranges are
    in order and cover every character; a text that is short enough is one range, the empty text
    has none.

    Args:
        text: any text.
        max_characters: longest piece, at least 1.

    Raises:
        ValueError: the limit is below 1.
    """
    if max_characters < 1:
        raise ValueError(f"a piece of {max_characters} characters holds nothing")
    ranges: list[tuple[int, int]] = []
    start = covered = 0
    while len(text) - start > max_characters:
        end = _break(text, covered, start + max_characters)
        if end is not None:
            ranges.append((start, end))
            start = covered = end
            continue
        end = _edge(text, start, start + max_characters)
        if end <= covered:  # the overlap leaves no room for one more character
            start = covered
            continue
        ranges.append((start, end))
        covered = end
        back = _edge(text, start, end - min(OVERLAP, max_characters // 4))
        start = back if start < back < end else end
    if start < len(text):
        ranges.append((start, len(text)))
    return tuple(ranges)


def _break(text: str, start: int, limit: int) -> int | None:
    """Return the end of the last break of the best kind inside a range, or None."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, start, limit)]
        if ends:
            return ends[-1]
    return None


def _edge(text: str, start: int, limit: int) -> int:
    """Return the last edge of a character, as seen, up to a limit; the limit if there is none."""
    edges = [end for _, end in graphemes(text[start : limit + 16])]
    place = bisect_right(edges, limit - start)
    return start + edges[place - 1] if place else limit
