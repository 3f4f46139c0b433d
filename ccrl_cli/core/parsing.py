"""Completion text to mentions, or a typed parse failure.

The answer format is a JSON list of ``{"text": ..., "type": ...}``. Strict JSON takes the fast
path; everything else goes through a scanner that reads forward only, without recursion, so the
time is linear in the length of any text and nothing that a model writes can raise.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ccrl_cli.records import Entity, Parse

_LIST_OPEN = re.compile(r"\[\s*+[\[{\]]")
_OBJECT_OPEN = re.compile(r"\{\s*+[\"']")
_SPACE = re.compile(r"\s*+")
_DOUBLE_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^'\"\\\n]*+)")
_LITERAL = re.compile(r"[-+.\w]++")
_NESTING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_FENCE = "```"


class _Cut(Exception):  # noqa: N818 - a signal between the functions here, never seen outside
    """The text ends before the element does."""


class _Malformed(Exception):  # noqa: N818
    """The element cannot be read."""


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _ignore_number(_digits: str) -> None:
    """Read any number as "not text": no conversion, which is quadratic for huge integers."""


# Objects arrive as tuples of pairs (no other JSON value does), which keeps duplicate keys visible.
_DECODER = json.JSONDecoder(
    object_pairs_hook=tuple,
    parse_int=_ignore_number,
    parse_float=_ignore_number,
    parse_constant=_refuse_constant,
)
_decode_string = json.decoder.scanstring  # type: ignore[attr-defined]


def parse_completion(text: str, types: Mapping[str, str]) -> Parse:
    """Read the mentions that a completion states.

    ``valid``: strict JSON, a list of objects with exactly the keys ``text`` and ``type``, both
    non-blank text, all types known; the empty list is valid. ``repaired``: readable after one of
    these repairs: code fence or prose around one list; trailing comma; cut tail (complete objects
    are kept); one object instead of a list; a list wrapped in an object; plain single-quoted text;
    raw line breaks in text; extra or duplicate keys (the last one counts); elements that are not
    mentions (dropped); lone surrogates (replaced by U+FFFD); unknown types (kept as written and
    counted). ``invalid``: anything else, with a reason.

    "No entities" is only ever read from a complete empty list: an answer of which nothing
    survives is invalid.

    Args:
        text: the completion, any text at all.
        types: prompt name to type identifier. Names and identifiers are matched exactly first,
            then without regard to case, width of whitespace and Unicode composition; a prompt
            name goes before an identifier.

    Returns:
        The outcome and the mentions in the order written. Never raises.
    """
    lookup = _type_lookup(tuple(types.items()))
    escaped = not text.isascii() or "\\u" in text
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _parse_repairable(text, lookup, escaped)
    if isinstance(value, list):
        return _interpret(value, lookup, escaped)
    if isinstance(value, tuple):
        return _interpret(_unwrap(value), lookup, escaped, "object instead of a list")
    return Parse("invalid", reason="no list")


@lru_cache(maxsize=256)
def _type_lookup(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return every accepted spelling of every type; earlier and more exact spellings win."""
    lookup: dict[str, str] = {}
    for spelling in (str, _fold):
        for name, identifier in items:
            lookup.setdefault(spelling(name), identifier)
        for _, identifier in items:
            lookup.setdefault(spelling(identifier), identifier)
    return lookup


def _fold(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _unwrap(pairs: tuple[tuple[str, Any], ...]) -> list[Any]:
    """Return the elements that a top-level object stands for: its only list, or itself."""
    lists = [value for _, value in pairs if isinstance(value, list)]
    if len(lists) == 1 and not any(key == "text" for key, _ in pairs):
        return list(lists[0])
    return [pairs]


def _interpret(
    elements: Sequence[Any], lookup: Mapping[str, str], escaped: bool, repair: str | None = None
) -> Parse:
    """Turn decoded elements (objects as tuples of pairs) into a parse.

    Args:
        elements: what stands in the list.
        lookup: accepted spelling to type identifier.
        escaped: whether the text can hold lone surrogates at all.
        repair: the repair made so far, if any.
    """
    entities: list[Entity] = []
    num_unknown = 0
    for element in elements:
        mention, fault = _read_mention(element)
        repair = repair or fault
        if mention is None:
            continue
        surface, kind = mention
        if escaped:
            clean, clean_kind = _replace_surrogates(surface), _replace_surrogates(kind)
            if clean != surface or clean_kind != kind:
                repair = repair or "lone surrogate"
                surface, kind = clean, clean_kind
        identifier = lookup.get(kind) or lookup.get(_fold(kind))
        if identifier is None:
            num_unknown += 1
            identifier = kind
        entities.append(Entity(surface, identifier))
    if elements and not entities:
        return Parse("invalid", reason="no element is a mention")
    if num_unknown:
        repair = repair or "unknown type"
    return Parse("repaired" if repair else "valid", tuple(entities), num_unknown, repair)


def _read_mention(element: Any) -> tuple[tuple[str, str] | None, str | None]:
    """Return (text, type) or None, and what had to be repaired or dropped, if anything."""
    if not isinstance(element, tuple):
        return None, "element is not an object"
    fields = dict(element)
    surface, kind = fields.get("text"), fields.get("type")
    if not isinstance(surface, str) or not isinstance(kind, str):
        return None, "mention without text or type"
    if not surface.strip() or not kind.strip():
        return None, "blank text or type"
    return (surface, kind), None if len(element) == 2 else "extra or duplicate keys"


def _replace_surrogates(text: str) -> str:
    """Return the text with lone surrogates replaced, so that it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _parse_repairable(text: str, lookup: Mapping[str, str], escaped: bool) -> Parse:
    """Read a completion that is not strict JSON as a whole."""
    body, rest = _open_fence(text)
    opening = _LIST_OPEN.search(body)
    if opening is not None:
        start, scan, again, what = opening.start(), _scan_list, _LIST_OPEN, "list"
    else:
        opening = _OBJECT_OPEN.search(body)
        if opening is None:
            return Parse("invalid", reason="no list")
        start, scan, again, what = opening.start(), _scan_single, _OBJECT_OPEN, "object"
    try:
        elements, end, repair = scan(body, start)
    except _Malformed:
        return Parse("invalid", reason=f"malformed {what}")
    except _Cut:
        return Parse("invalid", reason=f"cut {what}")
    if again.search(body, end) or again.search(rest):
        return Parse("invalid", reason=f"more than one {what}")
    if repair is None:
        fenced, around = body is not text, body[:start].strip() or body[end:].strip()
        repair = "code fence" if fenced else "text around the list" if around else "loose syntax"
    return _interpret(elements, lookup, escaped, repair)


def _open_fence(text: str) -> tuple[str, str]:
    """Return the part that holds the answer, and what follows it.

    A code fence counts only when it opens before the first list and holds one.
    """
    fence = text.find(_FENCE)
    opening = _LIST_OPEN.search(text)
    if fence < 0 or opening is None or opening.start() < fence:
        return text, ""
    start = fence + len(_FENCE)
    end = text.find(_FENCE, start)
    if end < 0:
        return text[start:], ""
    return (text, "") if end < opening.start() else (text[start:end], text[end:])


def _scan_list(text: str, start: int) -> tuple[list[Any], int, str | None]:
    """Read the list that opens at ``start``: elements, end, and whether its tail was cut.

    Raises:
        _Malformed: an element or a separator cannot be read.
        _Cut: the text ends before the first element does.
    """
    elements: list[Any] = []
    position = _skip_space(text, start + 1)
    try:
        while _peek(text, position) != "]":
            element, position = _scan_value(text, position)
            elements.append(element)
            position = _skip_separator(text, position, "]")
    except _Cut:
        if not any(isinstance(element, tuple) for element in elements):
            raise
        return elements, len(text), "cut tail"
    return elements, position + 1, None


def _scan_single(text: str, start: int) -> tuple[list[Any], int, str | None]:
    """Read the one object that opens at ``start`` as a list of one element."""
    element, end = _scan_object(text, start)
    return [element], end, "object instead of a list"


def _scan_object(text: str, start: int) -> tuple[tuple[tuple[str, Any], ...], int]:
    """Read the object that opens at ``start`` as pairs; nested values are skipped over."""
    pairs: list[tuple[str, Any]] = []
    position = _skip_space(text, start + 1)
    while _peek(text, position) != "}":
        key, position = _scan_string(text, position)
        position = _skip_space(text, position)
        if _peek(text, position) != ":":
            raise _Malformed
        value, position = _scan_value(text, _skip_space(text, position + 1), nested=True)
        pairs.append((key, value))
        position = _skip_separator(text, position, "}")
    return tuple(pairs), position + 1


def _scan_value(text: str, position: int, *, nested: bool = False) -> tuple[Any, int]:
    """Read one value: text, an object outside objects, or None for anything else."""
    first = _peek(text, position)
    if first == "{" and not nested:
        return _scan_object(text, position)
    if first in "\"'":
        return _scan_string(text, position)
    if first in "[{":
        return None, _skip_nested(text, position)
    literal = _LITERAL.match(text, position)
    if literal is None:
        raise _Malformed
    return None, literal.end()


def _scan_string(text: str, position: int) -> tuple[str, int]:
    """Read double-quoted text with JSON escapes, or plain single-quoted text."""
    first = _peek(text, position)
    if first == '"':
        match = _DOUBLE_QUOTED.match(text, position)
        if match is None or not match[1]:
            raise _Cut
        try:
            return _decode_string(text, position + 1, False)[0], match.end()
        except ValueError:
            raise _Malformed from None
    match = _SINGLE_QUOTED.match(text, position)
    if match is None or _peek(text, match.end()) != "'":
        raise _Malformed
    return match[1], match.end() + 1


def _skip_separator(text: str, position: int, closing: str) -> int:
    """Return the position of the next element, or of the closing bracket."""
    position = _skip_space(text, position)
    found = _peek(text, position)
    if found == ",":
        return _skip_space(text, position + 1)
    if found != closing:
        raise _Malformed
    return position


def _skip_nested(text: str, position: int) -> int:
    """Return the position after the brackets that open at ``position``."""
    depth = 0
    for token in _NESTING.finditer(text, position):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
            if depth == 0:
                return token.end()
    raise _Cut


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _peek(text: str, position: int) -> str:
    """Return the character at a position; the end of the text is a cut."""
    if position >= len(text):
        raise _Cut
    return text[position]
