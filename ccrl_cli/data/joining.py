"""Tokens and their text: laid on it where a file states it, else joined as scripts are written."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from ccrl_cli.core.alignment import mention_key

Offsets = tuple[tuple[int, int], ...]

# Thai, Lao, Burmese, Khmer: no blank between words, but beside other scripts.
_SOUTHEAST = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f]")
# Kana, Bopomofo, Han and their punctuation, full-width forms: no blank at all.
_EAST = re.compile(
    "[\u2e80-\u2fdf\u3000-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\uff61-\uff9f\uffe0-\uffe6\U00020000-\U0003ffff]"
)
#: Spellings of tokens in treebanks for what stands in the text.
_TREEBANK = {
    "``": ('"', "“", "``"),
    "''": ('"', "”", "''"),
    "-LRB-": ("(",),
    "-RRB-": (")",),
    "-LSB-": ("[",),
    "-RSB-": ("]",),
    "-LCB-": ("{",),
    "-RCB-": ("}",),
}


def single_characters(sentences: Iterable[Sequence[str]]) -> bool:
    """Return whether a file has one character a token, as Chinese sets and KLUE have.

    Letters of scripts that are written with blanks count only where the blanks are tokens.
    """
    told = False
    for tokens in sentences:
        for token in tokens:
            if len(unicodedata.normalize("NFC", token)) > 1:
                return False
            told = told or not token.strip() or bool(_EAST.match(token) or _SOUTHEAST.match(token))
    return told


def states_blanks(sentences: Iterable[Sequence[str]]) -> bool:
    """Return whether a file in a script without blanks has the blanks that there are as tokens."""
    blank = script = False
    for tokens in sentences:
        for token in tokens:
            blank = blank or not token.strip()
            script = script or bool(_EAST.search(token) or _SOUTHEAST.search(token))
    return blank and script


def join_tokens(tokens: Sequence[str], *, explicit: bool = False) -> tuple[str, Offsets]:
    """Return the text of tokens, and their half-open character ranges in it.

    Tokens are parted by one blank, but not between Han, Kana, Thai, Lao, Khmer or Burmese, and
    not beside a token that is white space itself.

    Args:
        tokens: T tokens.
        explicit: every blank is a token of its own.
    """
    parts: list[str] = []
    offsets: list[tuple[int, int]] = []
    position = 0
    last = ""
    for token in tokens:
        if offsets and not explicit and not (last and token and _unparted(last, token)):
            parts.append(" ")
            position += 1
        offsets.append((position, position + len(token)))
        parts.append(token)
        position += len(token)
        last = token
    return "".join(parts), tuple(offsets)


def _unparted(left: str, right: str) -> bool:
    """Return whether no blank stands between two tokens."""
    if left.isascii() and right.isascii():
        return not left.strip() or not right.strip()
    a, b = left[-1], right[0]
    if a.isspace() or b.isspace() or _EAST.match(a) or _EAST.match(b):
        return True
    return bool(_SOUTHEAST.match(a) and _SOUTHEAST.match(b))


def lay_tokens(tokens: Sequence[str], text: str) -> Offsets | None:
    """Return the half-open ranges of tokens in a text that they spell, white space apart.

    Tokens are compared as mentions are (composition and invisible characters do not matter), and
    by their treebank spellings (``-LRB-`` for a bracket).

    Returns:
        T ranges in order, empty ones for tokens of white space; None if they do not spell it.
    """
    offsets: list[tuple[int, int]] = []
    position = 0
    for token in tokens:
        position = _skip(text, position)
        end = next(
            (
                end
                for spelling in (token, *_TREEBANK.get(token, ()))
                if (end := _end(text, position, spelling)) is not None
            ),
            None,
        )
        if end is None:
            return None
        offsets.append((position, end))
        position = end
    return tuple(offsets) if _skip(text, position) == len(text) else None


def _skip(text: str, position: int) -> int:
    while position < len(text) and not mention_key(text[position]):
        position += 1
    return position


def _end(text: str, start: int, token: str) -> int | None:
    """Return where a token that begins at a character ends, or None if it does not stand there."""
    if token and not token[0].isspace() and text.startswith(token, start):
        return start + len(token)
    key = mention_key(token)
    end = start
    found = ""
    while len(found) < len(key) and end < len(text):
        end += 1
        found = mention_key(text[start:end])
        if not key.startswith(found[:1]):
            return None
    return end if found == key else None
