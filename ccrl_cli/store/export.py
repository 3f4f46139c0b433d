"""Export of records for other tools: JSON Lines or Parquet that ``load_dataset`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.records import Record
from ccrl_cli.store.atomic import replacing
from ccrl_cli.store.codec import identity_digest, record_to_json
from ccrl_cli.store.encoding import dump_json, replace_surrogates

Format = Literal["jsonl", "parquet"]
_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        replaced_characters: lone surrogates written as U+FFFD, which neither format can hold.
    """

    path: Path
    format: Format
    records: int
    replaced_characters: int
    bytes: int


def export_records(
    records: Iterable[Record], path: Path, format: Format | None = None
) -> ExportReport:
    """Write one row a record, with its completions and the label made with them; atomic.

    Columns: ``input_id``, ``text``, ``model``, ``completions`` (list of text, mean_logprob,
    num_tokens, finish), ``label_at_generation`` (list of text, type), ``confidence_at_generation``,
    ``created``, ``seconds``, ``identity_digest``, and ``identity`` and ``extra`` as JSON text,
    because their keys differ between records. The label is that of one model's completions as they
    came; training pools models and weighs types, so its label may be another.

    Args:
        records: what to write, read once.
        path: the file to write.
        format: ``jsonl`` or ``parquet``; None decides by the ending of the path.

    Raises:
        UsageError: the format is unknown.
        PreconditionError: pyarrow is needed and missing.
    """
    path = Path(path)
    chosen = _format_of(path, format)
    rows = _Rows(records)
    with replacing(path) as temporary:
        if chosen == "parquet":
            _write_parquet(rows, temporary)
        else:
            with temporary.open("wb") as stream:
                stream.writelines(dump_json(row) + b"\n" for row in rows)
    return ExportReport(
        path=path,
        format=chosen,
        records=rows.count,
        replaced_characters=rows.replaced_characters,
        bytes=path.stat().st_size,
    )


class _Rows:
    """Rows of an export, made one by one and counted."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.count = 0
        self.replaced_characters = 0
        self._records = records

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for record in self._records:
            self.count += 1
            yield self._row(record)

    def _row(self, record: Record) -> dict[str, Any]:
        value = record_to_json(record)
        for name in ("schema", "identity", *record.extra):
            del value[name]
        for name in ("confidence", "pseudo_label"):
            column = name.removeprefix("pseudo_") + "_at_generation"
            value[column] = value.pop(name)
        value["identity_digest"] = identity_digest(record.identity)
        value["identity"] = dump_json(record.identity, sort_keys=True).decode()
        value["extra"] = dump_json(record.extra, sort_keys=True).decode()
        row: dict[str, Any] = self._clean(value)
        return row

    def _clean(self, value: Any) -> Any:
        if isinstance(value, str):
            text, replaced = replace_surrogates(value)
            self.replaced_characters += replaced
            return text
        if isinstance(value, list):
            return [self._clean(item) for item in value]
        if isinstance(value, dict):
            return {key: self._clean(item) for key, item in value.items()}
        return value


def _format_of(path: Path, format: str | None) -> Format:
    name = (format or path.suffix.removeprefix(".")).lower()
    if name in ("jsonl", "json"):
        return "jsonl"
    if name == "parquet":
        return "parquet"
    raise UsageError(
        f"{name or path} is no export format", hint="give --format jsonl or --format parquet"
    )


def _write_parquet(rows: Iterable[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise PreconditionError(
            "an export to Parquet needs the package pyarrow",
            hint="`pip install pyarrow`, or `ccrl store export --format jsonl`",
        ) from error
    schema = _parquet_schema(pyarrow)
    source = iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(source, _ROWS_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(batch, schema=schema))


def _parquet_schema(pyarrow: Any) -> Any:
    text, number, integer = pyarrow.string(), pyarrow.float64(), pyarrow.int64()
    completion = pyarrow.struct(
        [("text", text), ("mean_logprob", number), ("num_tokens", integer), ("finish", text)]
    )
    return pyarrow.schema(
        [
            ("input_id", text),
            ("text", text),
            ("model", text),
            ("completions", pyarrow.list_(completion)),
            (
                "label_at_generation",
                pyarrow.list_(pyarrow.struct([("text", text), ("type", text)])),
            ),
            ("confidence_at_generation", number),
            ("identity_digest", text),
            ("identity", text),
            ("created", text),
            ("seconds", number),
            ("extra", text),
        ]
    )
