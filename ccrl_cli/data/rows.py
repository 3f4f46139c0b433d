"""Rows of named fields (JSONL, Parquet, hub data sets) to sentences."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ccrl_cli.data.examples import Row, text_lines
from ccrl_cli.data.shapes import TAG_FIELDS, row_from_fields
from ccrl_cli.errors import DataError, PreconditionError


def read_json_lines(
    content: bytes,
    source: str,
    tag_names: Sequence[str] | None = None,
    *,
    predicted: bool = False,
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
        yield _row(fields, where, tag_names, predicted)


def _row(value: Any, where: str, tag_names: Sequence[str] | None, predicted: bool) -> Row:
    """Return the sentence of a JSON value: an object, or spaCy's pair of text and annotations."""
    if (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], dict)
    ):
        value = {"text": value[0], **value[1]}
    if not isinstance(value, dict):
        raise DataError(
            f"{where}: the line is not a JSON object", hint='write {"text": ...} for each sentence'
        )
    return row_from_fields(value, where, tag_names, predicted=predicted)


def read_json(
    content: bytes,
    source: str,
    tag_names: Sequence[str] | None = None,
    *,
    predicted: bool = False,
) -> Iterator[Row]:
    """Yield the sentences of a ``.json`` file: an array of rows, or JSON Lines by that name.

    Raises:
        DataError: the file is neither, or a row is wrong.
    """
    text = "\n".join(line for _, line in text_lines(content, source))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.split("\n") if line.strip()]
        if len(lines) > 1 and all(line.lstrip()[:1] == "{" for line in lines[:2]):
            yield from read_json_lines(content, source, tag_names, predicted=predicted)
            return
        problem = str(error) if isinstance(error, json.JSONDecodeError) else "unreadable value"
        raise DataError(f"{source}: the file is not JSON ({problem})", hint=None) from None
    if (
        isinstance(value, dict)
        and isinstance(value.get("annotations"), list)
        and "classes" in value
    ):
        value = [item for item in value["annotations"] if item is not None]  # spaCy's annotator
    if isinstance(value, dict):
        if not {"text", "tokens", "data", "words", "tokenized_text", "input"} & set(value):
            raise DataError(
                f"{source}: the file is no array of rows (fields: {', '.join(list(value)[:12])})",
                hint="write an array of objects, one a sentence, or JSON Lines",
            )
        value = [value]
    if not isinstance(value, list):
        raise DataError(f"{source}: the file is no array of rows", hint="write JSON Lines")
    for number, item in enumerate(value, start=1):
        yield _row(item, f"{source}: row {number}", tag_names, predicted)


def read_arrow(
    files: Sequence[tuple[str, bytes]], tag_names: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the sentences of Arrow files, as ``save_to_disk`` of ``datasets`` writes them.

    Args:
        files: name and bytes of each shard, in order.
        tag_names: tag of each integer, where the files do not name them themselves.

    Raises:
        PreconditionError: pyarrow is not installed.
        DataError: a file is not Arrow, or a row is wrong.
    """
    pyarrow = _pyarrow(files[0][0] if files else "the data set")
    for source, content in files:
        try:
            try:
                table = pyarrow.ipc.open_stream(content).read_all()
            except pyarrow.ArrowInvalid:
                table = pyarrow.ipc.open_file(content).read_all()
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(
                f"{source}: the file is not Arrow ({_line(error)})", hint=None
            ) from None
        yield from _table_rows(table, source, tag_names)


def read_parquet(
    content: bytes, source: str, tag_names: Sequence[str] | None = None
) -> Iterator[Row]:
    """Yield the sentences of a Parquet file; integer tags take the names stored in it, if any.

    Raises:
        PreconditionError: pyarrow is not installed.
        DataError: the file is not Parquet, or a row is wrong.
    """
    pyarrow = _pyarrow(source)
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{source}: the file is not Parquet ({_line(error)})", hint=None) from None
    yield from _table_rows(table, source, tag_names)


def _pyarrow(source: str) -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise PreconditionError(
            f"{source} is a file of columns, and pyarrow is not installed",
            hint="pip install pyarrow",
        ) from None
    return pyarrow


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _table_rows(table: Any, source: str, tag_names: Sequence[str] | None) -> Iterator[Row]:
    """Yield the sentences of a table; integer tags take the names stored in it, if any."""
    names = tag_names or _stored_tag_names(table.schema.metadata)
    number = 0
    for batch in table.to_batches(max_chunksize=1024):
        for fields in batch.to_pylist():
            number += 1
            yield row_from_fields(fields, f"{source}: row {number}", names)


def _stored_tag_names(metadata: Mapping[bytes, bytes] | None) -> list[str] | None:
    """Return the tag names that the ``datasets`` package stores beside a Parquet schema."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None
    for field in TAG_FIELDS:
        try:
            return list(features[field]["feature"]["names"])
        except (KeyError, TypeError):
            continue
    return None
