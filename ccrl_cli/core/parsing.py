"""Completion text to mentions, or a typed parse failure.

The answer format is a JSON list of ``{"text": ..., "type": ...}``. Strict JSON takes the fast
path; everything else goes through a scanner that reads forward only, without recursion, so the
time is linear in the length of any text and nothing that a model writes can raise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ccrl_cli.core.alignment import fold_case
from ccrl_cli.core.reasoning import answer_part
from ccrl_cli.records import Entity, Finish, Parse

_LIST_OPEN = re.compile(r"\[\s*+[\[{\]]")
_OBJECT_OPEN = re.compile(r"\{\s*+[\"']")
_SPACE = re.compile(r"\s*+")
_DOUBLE_QUOTED = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)', re.DOTALL)
_SINGLE_QUOTED = re.compile(r"'([^'\"\\\n]*+)")
_LITERAL = re.compile(r"[-+.\w]++")
_NESTING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
_FENCE = "```"
_JOINTS = re.compile(r"[_\-/\s]+")
#: Keys under which a list, even an empty one, can mean mentions.
_MENTION_KEYS = frozenset(
    {
        *("entities", "entity", "namedentities", "mentions", "ner", "nes", "spans", "annotations"),
        *("answer", "list", "output", "result", "results", "items", "labels", "response", "data"),
    }
)
_DEEPEST = 8


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


def parse_completion(text: str, types: Mapping[str, str], finish: Finish = "stop") -> Parse:
    """Read the mentions that a completion states.

    What is read is its answer (:func:`ccrl_cli.core.reasoning.answer_part`): reasoning that never
    came to one is invalid, and so is any text with the finish ``error``.

    ``valid``: strict JSON, a list of objects with exactly the keys ``text`` and ``type``, both
    non-blank text, all types known; the empty list is valid. ``repaired``: readable after one of
    these repairs: code fence or prose around one list; trailing comma; cut tail (complete objects
    are kept); one object instead of a list; a list wrapped in an object; plain single-quoted text;
    raw line breaks in text; extra or duplicate keys (the last one counts); elements that are not
    mentions (dropped); lone surrogates (replaced by U+FFFD); unknown types (kept as written and
    counted); the same list repeated; JSON inside a JSON string; pairs of text and type; texts by
    type; one list deep inside. ``invalid``: anything else, with a reason.

    "No entities" is only ever read from a complete empty list that is the whole answer, or stands
    under a key that can mean mentions: inside prose or in an answer that was cut it is invalid, as
    is an answer of which nothing survives.

    Args:
        text: the completion, any text at all.
        types: prompt name to type identifier. Names and identifiers are matched exactly first,
            then without regard to case, white space, underscores, hyphens, slashes and Unicode
            composition; a prompt name goes before an identifier.
        finish: why the completion ended.

    Returns:
        The outcome and the mentions in the order written. Never raises.
    """
    if finish == "error":
        return Parse("invalid", reason="broken off")
    lookup = _type_lookup(tuple(types.items()))
    parse = _parse(text, lookup)
    if finish != "length" or parse.outcome == "invalid":
        return parse
    if not parse.entities or (
        parse.reason == "text around the list" and text.lstrip()[:1] not in ("[", "{", "`")
    ):
        return Parse("invalid", reason="cut answer")
    return parse


def _parse(text: str, lookup: Mapping[str, str]) -> Parse:
    escaped = not text.isascii() or "\\u" in text
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        answer = answer_part(text)
        if answer is None:
            return Parse("invalid", reason="reasoning without an answer")
        try:
            if answer == text:
                raise ValueError from None
            value = _DECODER.decode(answer)
        except (ValueError, RecursionError):
            return _parse_repairable(answer, lookup, escaped)
    return _read_value(value, lookup, escaped)


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
    return " ".join(_JOINTS.sub(" ", fold_case(name)).split())


def _read_value(value: Any, lookup: Mapping[str, str], escaped: bool) -> Parse:
    """Turn a decoded answer into a parse, whatever shape its mentions have."""
    if isinstance(value, str):
        try:
            inner = _DECODER.decode(value)
        except (ValueError, RecursionError):
            inner = None
        if not isinstance(inner, list | tuple):
            return Parse("invalid", reason="no list")
        return _interpret(_unwrap(inner, lookup), lookup, escaped, "JSON inside a JSON string")
    if isinstance(value, list):
        elements = _unwrap(value, lookup)
        return _interpret(elements, lookup, escaped, None if elements is value else "other shape")
    if isinstance(value, tuple):
        return _interpret(_unwrap(value, lookup), lookup, escaped, "object instead of a list")
    return Parse("invalid", reason="no list")


def _unwrap(value: list[Any] | tuple[Any, ...], lookup: Mapping[str, str]) -> list[Any]:
    """Return the elements that a decoded answer stands for, mentions as pairs of key and value."""
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list) and _is_mentions(value[0]):
            return value[0]
        return _from_pairs(value, lookup) or value
    fields = dict(value)
    if "text" in fields:
        return [value]
    found = _by_type(fields, lookup)
    if found is not None:
        return found
    lists = list(_lists(value))
    named = [items for key, items in lists if _means_mentions(key)]
    if len(named) == 1:
        return named[0]
    if len(lists) == 1 and lists[0][1] and not named:
        return lists[0][1]
    inner = [item for key, item in value if isinstance(item, tuple) and _means_mentions(key)]
    if len(inner) == 1:
        return _by_type(dict(inner[0]), lookup) or [value]
    return [value]


def _means_mentions(key: str) -> bool:
    return _JOINTS.sub("", key.casefold()) in _MENTION_KEYS


def _is_mentions(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, tuple) and "text" in dict(item) for item in items)


def _lists(value: tuple[Any, ...], depth: int = 0) -> Iterator[tuple[str, list[Any]]]:
    """Yield the lists in nested objects with their keys."""
    for key, item in value:
        if isinstance(item, list):
            yield key, item
        elif isinstance(item, tuple) and depth < _DEEPEST:
            yield from _lists(item, depth + 1)


def _by_type(fields: Mapping[str, Any], lookup: Mapping[str, str]) -> list[Any] | None:
    """Return mentions from lists of texts by type, or types by text; None for another shape."""
    if not fields:
        return None
    if all(_known(key, lookup) and _are_texts(item) for key, item in fields.items()):
        return [(("text", text), ("type", key)) for key, texts in fields.items() for text in texts]
    if all(isinstance(item, str) and _known(item, lookup) for item in fields.values()) and not any(
        _known(key, lookup) or key in ("type", "label") for key in fields
    ):
        return [(("text", key), ("type", item)) for key, item in fields.items()]
    return None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _from_pairs(value: list[Any], lookup: Mapping[str, str]) -> list[Any] | None:
    """Return mentions from pairs, if one of their two sides holds types in each, and one alone."""
    if not value or not all(_are_texts(item) and len(item) == 2 for item in value):
        return None
    sides = [side for side in (0, 1) if all(_known(item[side], lookup) for item in value)]
    if len(sides) != 1:
        return None
    (side,) = sides
    return [(("text", item[1 - side]), ("type", item[side])) for item in value]


def _known(name: str, lookup: Mapping[str, str]) -> bool:
    return name in lookup or _fold(name) in lookup


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
    repeated = False
    if again.search(body, end):
        if what == "object" or not _is_repeated(body, elements, end):
            return Parse("invalid", reason=f"more than one {what}")
        repeated = True
    elif again.search(rest):
        return Parse("invalid", reason=f"more than one {what}")
    fenced = body is not text
    around = body[:start].strip() or (body[end:].strip() if not repeated else "")
    if not elements and around and not fenced:
        return Parse("invalid", reason="an empty list inside prose")
    if repair is None:
        repair = "code fence" if fenced else "text around the list" if around else "loose syntax"
        repair = "repeated list" if repeated else repair
    return _interpret(elements, lookup, escaped, repair)


def _is_repeated(text: str, elements: list[Any], position: int) -> bool:
    """Return whether all that follows is the same list again, the last one maybe cut."""
    while (opening := _LIST_OPEN.search(text, position)) is not None:
        if text[position : opening.start()].strip(" \t\r\n,`"):
            return False
        try:
            again, position, cut = _scan_list(text, opening.start())
        except _Cut:
            return bool(elements)
        except _Malformed:
            return False
        if again != elements and not (cut and again == elements[: len(again)]):
            return False
    rest = text[position:].strip(" \t\r\n,`")
    return not rest or (rest == "[" and bool(elements))


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
