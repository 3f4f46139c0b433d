"""Rows of named fields (JSONL, Parquet, hub data sets) to sentences."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ccrl_cli.data.examples import Mention, Row, TaggedRow, TextRow, text_lines
from ccrl_cli.errors import DataError, PreconditionError

TAG_FIELDS = ("ner_tags", "tags")
"""Fields that may hold the tags of ``tokens``, the first one present is used."""

_SHAPE = 'a row needs "text", or "tokens" and "ner_tags", or "text" and "entities"'


def row_from_fields(
    fields: Mapping[str, Any], where: str, tag_names: Sequence[str] | None = None
) -> Row:
    """Return the sentence that a row states; ``tokens`` go before ``text``.

    Args:
        fields: ``text``; or ``tokens`` and ``ner_tags`` (text, or integers with ``tag_names``);
            or ``text`` and ``entities`` (objects with ``text``, ``type``, and optionally
            ``start`` and ``end`` in characters). Other fields are left alone; a label field that
            is missing or null means unlabelled.
        where: file and line, for messages.
        tag_names: tag of each integer.

    Raises:
        DataError: a field is missing or has the wrong kind of value.
    """
    tokens, text = fields.get("tokens"), fields.get("text")
    if tokens is not None:
        if not _is_text_list(tokens):
            raise DataError(f'{where}: "tokens" is not a list of texts', hint=_SHAPE)
        name = next((f for f in TAG_FIELDS if fields.get(f) is not None), None)
        if name is not None:
            tags = _tags(fields[name], f'{where}: "{name}"', tag_names)
            return TaggedRow(where, tuple(tokens), tags)
        if fields.get("entities") is None:
            return TaggedRow(where, tuple(tokens), None)
        text = " ".join(tokens)
    if not isinstance(text, str):
        raise DataError(f'{where}: there is no "text" and no "tokens"', hint=_SHAPE)
    entities = fields.get("entities")
    if entities is None:
        return TextRow(where, text)
    if not isinstance(entities, list):
        raise DataError(f'{where}: "entities" is not a list', hint=_SHAPE)
    return TextRow(where, text, tuple(_mention(e, where) for e in entities))


def _is_text_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _tags(value: Any, where: str, tag_names: Sequence[str] | None) -> tuple[str, ...]:
    if _is_text_list(value):
        return tuple(value)
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise DataError(f"{where} is not a list of tags", hint=_SHAPE)
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


def _mention(entity: Any, where: str) -> Mention:
    if not isinstance(entity, Mapping):
        raise DataError(f"{where}: an entity is not an object", hint=_SHAPE)
    text, kind = entity.get("text"), entity.get("type")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f'{where}: an entity has no "text"', hint=_SHAPE)
    if not isinstance(kind, str) or not kind.strip():
        raise DataError(f'{where}: entity {text!r} has no "type"', hint=_SHAPE)
    start, end = entity.get("start"), entity.get("end")
    for name, value in (("start", start), ("end", end)):
        if value is not None and type(value) is not int:
            raise DataError(
                f"{where}: {name} of entity {text!r} is not a whole number",
                hint="count characters from 0",
            )
    if (start is None) != (end is None):
        raise DataError(
            f"{where}: entity {text!r} has a start or an end, not both",
            hint="give both character positions or neither",
        )
    return Mention(text, kind, start, end)


def read_json_lines(
    content: bytes, source: str, tag_names: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the sentences of a JSONL file; blank lines are skipped.

    Raises:
        DataError: the first line that is not a JSON object of the shape of
            :func:`row_from_fields`, with file and line.
    """
    for number, line in text_lines(content, source):
        if not line.strip(" \t\r"):
            continue
        where = f"{source}:{number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = error.msg if isinstance(error, json.JSONDecodeError) else "unreadable value"
            raise DataError(
                f"{where}: the line is not JSON ({problem})",
                hint="write one JSON object a line",
            ) from None
        if not isinstance(fields, dict):
            raise DataError(f"{where}: the line is not a JSON object", hint=_SHAPE)
        yield row_from_fields(fields, where, tag_names)


def read_parquet(
    content: bytes, source: str, tag_names: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the sentences of a Parquet file; integer tags take the names stored in it, if any.

    Raises:
        PreconditionError: pyarrow is not installed.
        DataError: the file is not Parquet, or a row is wrong.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise PreconditionError(
            f"{source} is a Parquet file, and pyarrow is not installed",
            hint="pip install pyarrow",
        ) from None
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{source}: the file is not Parquet ({reason})", hint=None) from None
    names = tag_names or _stored_tag_names(table.schema.metadata)
    wanted = [c for c in ("text", "tokens", *TAG_FIELDS, "entities") if c in table.column_names]
    number = 0
    for batch in table.select(wanted).to_batches(max_chunksize=1024):
        for fields in batch.to_pylist():
            number += 1
            yield row_from_fields(fields, f"{source}: row {number}", names)


def _stored_tag_names(metadata: Mapping[bytes, bytes] | None) -> list[str] | None:
    """Return the tag names that the ``datasets`` package stores beside a Parquet schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        for field in TAG_FIELDS:
            if field in features:
                return list(features[field]["feature"]["names"])
    except (KeyError, TypeError, ValueError):
        pass
    return None
