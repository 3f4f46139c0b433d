"""Which format a row of named fields has, and the sentence that it states.

Recognised by shape: ccrl's own rows, tokens with tags (also under the names that hub data sets
use), doccano, Prodigy, Label Studio (JSON and JSON-MIN), spaCy, GLiNER, GLiNER2. A row whose
annotations are in none of these shapes is refused with the fields found, never read as unlabelled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ccrl_cli.data.examples import TAG, Mention, RejectedRow, Row, TaggedRow, TextRow
from ccrl_cli.data.joining import join_tokens, lay_tokens
from ccrl_cli.errors import DataError

TEXT_FIELDS = ("text", "sentence", "data", "content")
TOKEN_FIELDS = ("tokens", "words", "tokenized_text")
TAG_FIELDS = ("ner_tags", "tags", "ner", "labels", "label", "bio", "bio_tags", "ner_labels")
"""Fields that may hold the tags of tokens; the first one that does is used."""
MENTION_FIELDS = ("entities", "ents", "spans", "labels", "label", "ner", "mentions", "annotations")
"""Fields that may hold mentions; the first one that does is used."""
_TYPE = ("type", "label", "labels", "entity_group", "entity_type", "entity", "class", "category")
_TEXT = ("text", "word", "surface", "mention", "span", "value")
_START = ("start", "start_offset", "start_char", "begin", "start_idx")
_END = ("end", "end_offset", "end_char", "end_idx")
_ANNOTATION = frozenset((*TAG_FIELDS, *MENTION_FIELDS, "completions", "predictions", "result"))
_HINT = (
    'a row needs "text", or "tokens" and "ner_tags", or "text" and "entities" (or the form of '
    "doccano, Prodigy, Label Studio, spaCy or GLiNER)"
)
_TAG_TEXT = re.compile(rf"(O|{TAG.pattern})(\s+(O|{TAG.pattern}))*")


def row_from_fields(
    fields: Mapping[str, Any],
    where: str,
    tag_names: Sequence[str] | None = None,
    *,
    predicted: bool = False,
) -> Row:
    """Return the sentence that a row states.

    A row's own text is the sentence; tokens are laid on it. A label field that is missing or null
    means unlabelled. Fields that hold no annotation are left alone.

    Args:
        fields: the row.
        where: file and line, for messages.
        tag_names: tag of each integer.
        predicted: take what a system predicted (``predicted`` of ccrl's own files, ``predictions``
            of Label Studio) before anything else.

    Raises:
        DataError: a field is missing, has the wrong kind of value, or holds annotations in a shape
            that is not known.
    """
    answer = fields.get("answer")
    if answer in ("reject", "ignore") and ("spans" in fields or "tokens" in fields):
        return RejectedRow(where)
    if isinstance(fields.get("data"), Mapping):
        return _label_studio_task(fields, where, predicted)
    if isinstance(fields.get("input"), str) and isinstance(fields.get("output"), Mapping):
        return _gliner2(fields, where)
    tokens = _tokens(fields, where)
    text = next((fields[f] for f in TEXT_FIELDS if isinstance(fields.get(f), str)), None)
    if predicted and isinstance(fields.get("predicted"), list) and text is not None:
        return TextRow(where, text, _mentions(fields["predicted"], where, "predicted"), "ccrl")
    if tokens is not None:
        row = _tagged(fields, tokens, text, where, tag_names)
        if row is not None:
            return row
        if isinstance(fields.get("ner"), list) and "tokenized_text" in fields:
            return _gliner(fields["ner"], tokens, text, where)
    elif text is None:
        raise DataError(
            f'{where}: there is no "text" and no "tokens" (fields: {_names(fields)})', hint=_HINT
        )
    return _with_mentions(fields, tokens, text, where)


def _with_mentions(
    fields: Mapping[str, Any], tokens: tuple[str, ...] | None, text: str | None, where: str
) -> Row:
    """Return a text, or tokens, with the mentions beside it, if there are any."""
    sentence = text if text is not None else join_tokens(tokens or ())[0]
    stated = {name: _decoded(fields.get(name)) for name in MENTION_FIELDS}
    if not isinstance(stated["entities"], list | Mapping | None):
        raise DataError(f'{where}: "entities" is not a list', hint=_HINT)
    known = {name: value for name, value in stated.items() if _holds_mentions(name, value)}
    full = {name: value for name, value in known.items() if value}
    name = next(iter(full or known), None)
    if name is not None:
        found = _mentions(known[name], where, name)
        for other in full:
            if other != name and len(_mentions(full[other], where, other)) != len(found):
                raise DataError(
                    f'{where}: "{name}" and "{other}" state different mentions',
                    hint="leave one of the two out",
                )
        return TextRow(where, sentence, found, _form(fields, name))
    _check_understood(fields, where)
    if tokens is not None:
        return TaggedRow(where, tokens, None, text)
    return TextRow(where, sentence)


def _holds_mentions(name: str, value: Any) -> bool:
    """Return whether the value of a field may be mentions; an empty list is none of them."""
    if name == "entities":
        return isinstance(value, list | Mapping)
    if isinstance(value, Mapping):
        return set(value) == {"entities"}
    if not isinstance(value, list):
        return False
    return name in ("spans", "ents", "mentions") or _is_annotation(value) or not value


def _form(fields: Mapping[str, Any], name: str) -> str:
    """Return the name of the format whose mentions a field holds."""
    if name == "spans":
        return "Prodigy"
    if name == "ents":
        return "spaCy"
    first = next(iter(fields[name]), None) if isinstance(fields[name], list) else None
    if isinstance(first, Mapping) and "start_offset" in first:
        return "doccano"
    if isinstance(first, Mapping) and "labels" in first:
        return "Label Studio (JSON-MIN)"
    if isinstance(first, list) or name in ("label", "labels"):
        return "doccano"
    return ""


# --- tokens and tags ----------------------------------------------------------------------------


def _tokens(fields: Mapping[str, Any], where: str) -> tuple[str, ...] | None:
    for name in TOKEN_FIELDS:
        value = _decoded(fields.get(name))
        if value is None:
            continue
        if is_text_list(value):
            return tuple(value)
        if any(isinstance(fields.get(f), str) for f in TEXT_FIELDS) and (
            isinstance(value, list) and all(isinstance(item, Mapping) for item in value)
        ):
            continue  # tokens with their places, as Prodigy and spaCy write them beside the text
        raise DataError(f'{where}: "{name}" is not a list of texts', hint=_HINT)
    return None


def _tagged(
    fields: Mapping[str, Any],
    tokens: tuple[str, ...],
    text: str | None,
    where: str,
    tag_names: Sequence[str] | None,
) -> TaggedRow | None:
    """Return tokens with their tags, or None if no field holds tags."""
    for name in TAG_FIELDS:
        value = _decoded(fields.get(name))
        if value is None or (name not in ("ner_tags", "tags") and not _are_tags(value, tokens)):
            continue
        tags = _tags(value, f'{where}: "{name}"', tag_names)
        return TaggedRow(where, tokens, tags, text)
    return None


def _are_tags(value: Any, tokens: Sequence[str]) -> bool:
    return (
        isinstance(value, list)
        and (is_text_list(value) or all(type(item) is int for item in value))
        and len(value) == len(tokens)
    )


def is_text_list(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _tags(value: Any, where: str, tag_names: Sequence[str] | None) -> tuple[str, ...]:
    if is_text_list(value):
        return tuple(value)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise DataError(f"{where} is not a list of tags", hint=_HINT)
    if tag_names is None or "O" not in tag_names:
        raise DataError(
            f"{where} holds numbers, and what they stand for is not known",
            hint='write the tags as text, or list them in order: labels = ["O", "B-person", ...]',
        )
    wrong = next((item for item in value if not 0 <= item < len(tag_names)), None)
    if wrong is not None:
        raise DataError(
            f"{where} holds {wrong}, but there are {len(tag_names)} labels",
            hint="list every tag in labels, in the order of the numbers",
        )
    return tuple(tag_names[item] for item in value)


# --- mentions -----------------------------------------------------------------------------------


def _mentions(value: Any, where: str, name: str) -> tuple[Mention, ...]:
    """Return the mentions that a list, or an object by type, states."""
    if isinstance(value, Mapping):
        if set(value) == {"entities"}:  # spaCy's training data
            return _mentions(value["entities"], where, name)
        return _by_type(value, where)
    if not isinstance(value, list):
        raise DataError(f'{where}: "{name}" is not a list', hint=_HINT)
    return tuple(_mention(item, where) for item in value)


def _by_type(value: Mapping[str, Any], where: str) -> tuple[Mention, ...]:
    """Return the mentions of an object of lists of texts (or objects with ``text``) by type."""
    found: list[Mention] = []
    for kind, texts in value.items():
        for item in texts if isinstance(texts, list) else [texts]:
            if isinstance(item, str) and item.strip():
                found.append(Mention(item, kind))
            elif isinstance(item, Mapping):
                found.append(_mention({**item, "type": kind}, where))
            else:
                raise DataError(f"{where}: the mentions of {kind!r} are no texts", hint=_HINT)
    return tuple(found)


def _mention(item: Any, where: str) -> Mention:
    if isinstance(item, list | tuple):
        if len(item) >= 3 and type(item[0]) is type(item[1]) is int and isinstance(item[2], str):
            return _checked(Mention(None, item[2], item[0], item[1]), where)
        raise DataError(
            f"{where}: the mention {str(item)[:60]!r} is not [start, end, type]", hint=_HINT
        )
    if not isinstance(item, Mapping):
        raise DataError(f"{where}: an entity is not an object", hint=_HINT)
    if isinstance(item.get("value"), Mapping):  # one result of Label Studio
        item = item["value"]
    surface = next((item[f] for f in _TEXT if isinstance(item.get(f), str)), None)
    kind = next((item[f] for f in _TYPE if item.get(f) is not None), None)
    if isinstance(kind, list):
        if len(kind) != 1:
            raise DataError(
                f"{where}: entity {surface!r} has {len(kind)} types", hint="give one type each"
            )
        kind = kind[0]
    start = next((item[f] for f in _START if item.get(f) is not None), None)
    end = next((item[f] for f in _END if item.get(f) is not None), None)
    if (surface is None and start is None) or (surface is not None and not surface.strip()):
        raise DataError(f'{where}: an entity has no "text"', hint=_HINT)
    if not isinstance(kind, str):
        raise DataError(f'{where}: entity {surface!r} has no "type"', hint=_HINT)
    return _checked(Mention(surface, kind, start, end), where)


def _checked(mention: Mention, where: str) -> Mention:
    if not mention.type.strip():
        raise DataError(f'{where}: entity {mention.text!r} has no "type"', hint=_HINT)
    for name, value in (("start", mention.start), ("end", mention.end)):
        if value is not None and type(value) is not int:
            raise DataError(
                f"{where}: {name} of entity {mention.text!r} is not a whole number",
                hint="count characters from 0",
            )
    if (mention.start is None) != (mention.end is None):
        raise DataError(
            f"{where}: entity {mention.text!r} has a start or an end, not both",
            hint="give both character positions or neither",
        )
    return mention


# --- other tools --------------------------------------------------------------------------------


def _label_studio_task(fields: Mapping[str, Any], where: str, predicted: bool) -> Row:
    """Return one task of Label Studio's JSON export."""
    data = fields["data"]
    texts = [value for value in data.values() if isinstance(value, str)]
    text = data.get("text") if isinstance(data.get("text"), str) else None
    if text is None and len(texts) == 1:
        text = texts[0]
    if text is None:
        raise DataError(
            f"{where}: the data of the task holds no text (fields: {_names(data)})", hint=_HINT
        )
    names = ("predictions",) if predicted and fields.get("predictions") else ()
    done = next((fields[f] for f in (*names, "annotations", "completions") if fields.get(f)), None)
    if not done:
        return TextRow(where, text, None, "Label Studio")
    if not isinstance(done, list) or not all(isinstance(item, Mapping) for item in done):
        raise DataError(f"{where}: the annotations of the task are no list of objects", hint=_HINT)
    kept = [item for item in done if not item.get("was_cancelled")]
    if not kept:
        return RejectedRow(where)
    results = [
        tuple(
            _mention(result, where)
            for result in item.get("result") or ()
            if isinstance(result, Mapping) and str(result.get("type", "")).endswith("labels")
        )
        for item in kept
    ]
    if any(set(result) != set(results[0]) for result in results):
        raise DataError(
            f"{where}: the task has {len(results)} annotations that differ",
            hint="keep one annotation a task",
        )
    return TextRow(where, text, results[0], "Label Studio")


def _gliner2(fields: Mapping[str, Any], where: str) -> Row:
    stated = fields["output"].get("entities")
    if stated is None:
        return TextRow(where, fields["input"], None, "GLiNER2")
    if not isinstance(stated, Mapping):
        raise DataError(f'{where}: "output" has no object "entities"', hint=_HINT)
    return TextRow(where, fields["input"], _by_type(stated, where), "GLiNER2")


def _gliner(spans: list[Any], tokens: tuple[str, ...], text: str | None, where: str) -> Row:
    """Return tokens with inclusive token ranges as text with characters."""
    laid = lay_tokens(tokens, text) if text is not None else None
    sentence, offsets = (text, laid) if text is not None and laid else join_tokens(tokens)
    found: list[Mention] = []
    for span in spans:
        if not (
            isinstance(span, list)
            and len(span) >= 3
            and type(span[0]) is type(span[1]) is int
            and isinstance(span[2], str)
            and 0 <= span[0] <= span[1] < len(tokens)
        ):
            raise DataError(
                f"{where}: the mention {str(span)[:60]!r} is not [first token, last token, type]",
                hint="tokens count from 0, the last one is included",
            )
        found.append(Mention(None, span[2], offsets[span[0]][0], offsets[span[1]][1]))
    return TextRow(where, sentence, tuple(found), "GLiNER")


# --- what is not understood ---------------------------------------------------------------------


def _check_understood(fields: Mapping[str, Any], where: str) -> None:
    """Raise DataError if a row without labels has a field that looks like some."""
    for name, value in fields.items():
        value = _decoded(value)
        named = name in _ANNOTATION and (
            (isinstance(value, list | Mapping) and len(value) > 0)
            or (isinstance(value, str) and _TAG_TEXT.fullmatch(value) is not None)
        )
        if named or (_is_annotation(value) and name not in TOKEN_FIELDS):
            raise DataError(
                f"{where}: the annotations in {name!r} are not understood "
                f"(fields: {_names(fields)})",
                hint=_HINT,
            )


def _is_annotation(value: Any) -> bool:
    """Return whether a value looks like mentions or tags."""
    if isinstance(value, Mapping):
        return set(value) == {"entities"}
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, Mapping):
        keys = {str(key).casefold() for item in value if isinstance(item, Mapping) for key in item}
        if "value" in keys and isinstance(first.get("value"), Mapping):
            return True
        return bool(keys & set(_START)) or (bool(keys & set(_TYPE)) and bool(keys & set(_TEXT)))
    if isinstance(first, list):
        return len(first) >= 3 and type(first[0]) is type(first[1]) is int
    if isinstance(first, str):
        texts = [item for item in value if isinstance(item, str) and _TAG_TEXT.fullmatch(item)]
        return len(texts) == len(value) and any(text[:2] in ("B-", "I-") for text in texts)
    return False


def _decoded(value: Any) -> Any:
    """Return what a cell of a table states as JSON, any other value as it is."""
    if isinstance(value, str) and value[:1] in "[{" and value[-1:] in "]}":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _names(fields: Mapping[str, Any]) -> str:
    names = [str(name) for name in fields]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
