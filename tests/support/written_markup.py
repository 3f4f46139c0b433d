"""The inverse of the markup reader, for round trips."""

from __future__ import annotations

import re

from ccrl_cli.records import Example

_SPECIAL = re.compile(r"([\[\]|\\])")


def format_sentence(example: Example) -> str:
    """Write one labelled or unlabelled sentence as markup, the inverse of :func:`parse_sentence`.

    Raises:
        ValueError: the text is blank, holds a line feed or ends in a carriage return, which the
            line format cannot hold.
    """
    text = example.text
    if not text.strip() or "\n" in text or text.endswith("\r"):
        raise ValueError(f"input {example.id} does not fit in one line of markup")
    pieces: list[str] = []
    position = 0
    for span in sorted(example.gold or ()):
        start, end = example.offsets[span.start][0], example.offsets[span.end - 1][1]
        mention = f"[{_escape(text[start:end])}|{_escape(span.type)}]"
        pieces += (_escape(text[position:start]), mention)
        position = end
    line = "".join((*pieces, _escape(text[position:])))
    return f"\\{line}" if line.startswith("#") else line


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
