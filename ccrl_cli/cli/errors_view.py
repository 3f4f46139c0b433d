"""The error browser: sentences with gold and predicted spans, in colour or in brackets."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from ccrl_cli.cli.output import Mode
from ccrl_cli.cli.streams import takes_escapes
from ccrl_cli.core.mistakes import JudgedSpan, Verdict, segments
from ccrl_cli.store.predictions import PredictionRow, read_prediction

_WORDS: dict[Verdict, str] = {
    "missed": "missed",
    "spurious": "invented",
    "type": "wrong type",
    "boundary": "wrong boundary",
    "right": "right",
}
_STYLES: dict[Verdict, str] = {
    "right": "32",
    "missed": "33",
    "spurious": "31",
    "type": "35",
    "boundary": "36",
}
_SIGNS: dict[Verdict, str] = {
    "right": "",
    "missed": "-",
    "spurious": "+",
    "type": "!",
    "boundary": "~",
}
# What a terminal would obey instead of show: controls, direction overrides, lone surrogates.
_UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def colors_shown(stream: TextIO, mode: Mode) -> bool:
    """Return whether a stream gets colours: a terminal, without ``--no-color`` or NO_COLOR."""
    return mode.color and not os.environ.get("NO_COLOR") and takes_escapes(stream)


def errors_text(rows: Sequence[Mapping[str, Any]], limit: int, *, color: bool) -> str:
    """Return the sentences with the most mistakes for a reader; most mistakes first.

    Args:
        rows: predictions as in ``predictions-*.jsonl``; rows without gold are left out.
        limit: sentences shown at most.
        color: ANSI colours; else spans stand in brackets with a sign for what is wrong.
    """
    return "\n".join(_lines(rows, limit, color))


def _lines(rows: Sequence[Mapping[str, Any]], limit: int, color: bool) -> Iterator[str]:
    read = [read_prediction(row, f"prediction {i}") for i, row in enumerate(rows, start=1)]
    judged = [(row, row.judgement()) for row in read if row.gold is not None]
    wrong = [(row, found) for row, found in judged if found.num_wrong or row.outcome == "invalid"]
    wrong.sort(key=lambda pair: (-pair[1].num_wrong, pair[0].input_id))
    shown = wrong[: max(0, limit)]
    yield f"{len(wrong)} of {len(judged)} sentences have mistakes; {len(shown)} shown, worst first"
    if not shown:
        return
    yield _legend(color)
    for number, (row, found) in enumerate(shown, start=1):
        yield ""
        yield f"{number}. {_summary(row, (*found.gold, *found.predicted))} ({row.input_id})"
        yield f"  gold       {_marked(row.text, found.gold, color)}"
        yield f"  predicted  {_marked(row.text, found.predicted, color)}"
        for mention in row.hallucinated:
            text = f"{safe(mention.text)} ({safe(mention.type)})"
            yield f"  not in the text: {_painted(text, '31', color)}"
        if row.outcome == "invalid":
            yield f"  answer not readable: {safe(row.completion[:200])}"


def _legend(color: bool) -> str:
    if color:
        return "  ".join(_painted(word, _STYLES[name], True) for name, word in _WORDS.items())
    signs = ", ".join(f"[{_SIGNS[name]} {word}]" for name, word in _WORDS.items() if _SIGNS[name])
    return f"[right], {signs}"


def _summary(row: PredictionRow, spans: Sequence[JudgedSpan]) -> str:
    """Return the counts of a sentence's mistakes; a gold and a predicted side of one count once."""
    counts = Counter(item.verdict for item in spans)
    parts = []
    for name, word in _WORDS.items():
        # A wrong type or boundary stands on both sides.
        count = (counts[name] + 1) // 2 if name in ("type", "boundary") else counts[name]
        if count and name != "right":
            parts.append(f"{count} {word}")
    if row.hallucinated:
        parts.append(f"{len(row.hallucinated)} not in the text")
    if row.outcome == "invalid":
        parts.append("answer invalid")
    return ", ".join(parts)


def _marked(text: str, spans: Sequence[JudgedSpan], color: bool) -> str:
    pieces = []
    for piece in segments(text, spans):
        if piece.span is None:
            pieces.append(safe(piece.text))
            continue
        verdict, kind = piece.span.verdict, safe(piece.span.span.type)
        if color:
            style = _STYLES[verdict]
            pieces.append(f"\x1b[1;4;{style}m{safe(piece.text)}\x1b[0m\x1b[{style}m/{kind}\x1b[0m")
        else:
            sign = f"{_SIGNS[verdict]} " if _SIGNS[verdict] else ""
            pieces.append(f"[{sign}{safe(piece.text)} | {kind}]")
    return "".join(pieces)


def _painted(text: str, style: str, color: bool) -> str:
    return f"\x1b[{style}m{text}\x1b[0m" if color else text


def safe(text: str) -> str:
    """Return a text with everything a terminal would obey written out, line breaks as spaces."""
    flat = re.sub(r"[\r\n\t]+", " ", text)
    return _UNSHOWN.sub(lambda match: f"\\u{ord(match[0]):04x}", flat)
