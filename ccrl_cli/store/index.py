"""What a store holds, in about 200 bytes a record: keys, places and digests, no texts.

A key is (input, model). Records of one key carry a version, the number in their field
``overwrites`` (0 if absent); the highest version is the one that counts. So a reader needs no
order of lines, and merging stays independent of the order of files.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from ccrl_cli.store.codec import OVERWRITES, SCHEMA, check_fields, content_bytes
from ccrl_cli.store.compressed import COMPRESSED_SUFFIXES
from ccrl_cli.store.encoding import dump_json
from ccrl_cli.store.jsonl import JsonlReader, bad_line, parse_object


class _Head(msgspec.Struct, gc=False):
    """What a scan needs of a line; the rest is checked to be JSON, and never built."""

    input_id: str
    model: str
    completions: list[msgspec.Raw]
    identity: msgspec.Raw
    schema: int
    overwrites: int = 0


_decode_head = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of the record that counts for one key; records alike share one object.

    Attributes:
        version: how often the key was overwritten before this record.
        num_completions: K of this record.
    """

    version: int
    num_completions: int
    identity: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Group:
    """What consecutive records of one model mostly share; ``rows`` are the model's keys."""

    model: str
    rows: dict[str, int]
    kind: int
    version: int
    num_completions: int
    identity: Mapping[str, Any]


class StoreIndex:
    """Keys of a store, filled line by line.

    Args:
        path: the file the lines come from, to compare a repeated key with its first line. Without
            it, or for a compressed file, the content of each line is hashed instead. While it is
            scanned the file stays open for that.

    Attributes:
        num_lines: lines added.
        num_duplicates: lines equal to an earlier one, times and durations aside.
        num_replaced: lines that a later version replaced.
        torn_bytes: bytes of a torn last line, when the index was scanned from a file.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.num_lines = 0
        self.num_duplicates = 0
        self.num_replaced = 0
        self.torn_bytes = 0
        self._file = path
        self._path = path if path and path.suffix not in COMPRESSED_SUFFIXES else None
        self._rows: dict[str, dict[str, int]] = {}
        self._offsets = array("q")
        self._hashes = array("q")
        self._kinds = array("q")
        self._kind_of: dict[tuple[int, int, bytes], int] = {}
        self._entries: list[Entry] = []
        self._identities: dict[bytes, Mapping[str, Any]] = {}
        self._stream: IO[bytes] | None = None
        self._latest: _Group | None = None
        self._spelling: msgspec.Raw | None = None  # of the identity of the latest line

    @classmethod
    def scan(cls, path: Path) -> StoreIndex:
        """Read a whole store; a missing file is an empty store.

        Raises:
            IntegrityError: a line is bad, or contradicts an earlier one of its key and version.
        """
        index = cls(path)
        if not path.exists():
            return index
        reader = JsonlReader(path)
        offset = 0
        try:
            for offset, raw in reader.raw():
                if not index._add_alike(offset, raw):
                    index.add(offset, reader.decode(raw, offset))
        except ValueError as error:
            raise bad_line(path, reader.number_at(offset), str(error)) from error
        finally:
            index._close()
        index.torn_bytes = reader.torn_bytes
        return index

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    @property
    def models(self) -> tuple[str, ...]:
        """Models in order of first appearance."""
        return tuple(self._rows)

    def add(self, offset: int, value: Mapping[str, Any]) -> None:
        """Take in the record of one line, which begins at a byte offset.

        Raises:
            ValueError: the line is no record, or another record of its key and version differs.
        """
        get = value.get
        input_id, model, completions = get("input_id"), get("model"), get("completions")
        group = self._latest
        if not (  # what check_fields checks, and the quick way to the group of nearly every line
            group is not None
            and type(input_id) is str
            and model == group.model
            and get("identity") == group.identity
            and type(completions) is list
            and len(completions) == group.num_completions
            and get(OVERWRITES, 0) == group.version
            and get("schema") == SCHEMA
        ):
            check_fields(value)
            group = self._latest = self._group(value)
        self.num_lines += 1
        rows, new = group.rows, len(self._offsets)
        row = rows.setdefault(value["input_id"], new)
        if row == new:
            self._offsets.append(offset)
            self._kinds.append(group.kind)
            if self._path is None:
                self._hashes.append(hash(content_bytes(value)))
            return
        version, stored = group.version, self._version(row)
        if version == stored:
            if not self._is_equal(row, value):
                raise ValueError(
                    f"input {input_id} by {model} is stored twice with different content"
                    f"{self._first_line(row)}"
                )
            self.num_duplicates += 1
            return
        self.num_replaced += 1
        if version > stored:
            self._offsets[row] = offset
            self._kinds[row] = group.kind
            if self._path is None:
                self._hashes[row] = hash(content_bytes(value))

    def _add_alike(self, offset: int, raw: bytes) -> bool:
        """Take in a line whose key is new and whose settings are spelled as the line's before.

        Returns:
            Whether it was one; any other is for ``add``, and the next is compared with that.
        """
        try:
            head = _decode_head(raw)
            if not raw.isascii():
                raw.decode()  # what is skipped is not checked for it
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._spelling = None
            return False
        group = self._latest
        if (
            group is None
            or self._path is None
            or head.identity != self._spelling
            or head.model != group.model
            or len(head.completions) != group.num_completions
            or head.overwrites != group.version
            or head.schema != SCHEMA
            or head.input_id in group.rows
        ):
            self._spelling = head.identity.copy()
            return False
        self.num_lines += 1
        group.rows[head.input_id] = len(self._offsets)
        self._offsets.append(offset)
        self._kinds.append(group.kind)
        return True

    def find(self, input_id: str, model: str) -> Entry | None:
        """Return the record that counts for a key, or None."""
        row = self._rows.get(model, {}).get(input_id)
        return None if row is None else self._entry(row)

    def has_input(self, input_id: str) -> bool:
        """Return whether any model has labelled the input."""
        return any(input_id in rows for rows in self._rows.values())

    def holds(self, value: Mapping[str, Any]) -> bool:
        """Return whether the record that counts for the key of ``value`` has its content."""
        row = self._rows.get(value["model"], {}).get(value["input_id"])
        return row is not None and self._is_equal(row, value)

    def input_ids(self, model: str) -> Collection[str]:
        """Return the inputs that a model has labelled, in order of first appearance."""
        return self._rows.get(model, {}).keys()

    def entries(self, model: str) -> Iterator[tuple[str, Entry]]:
        """Yield (input id, entry) of one model in order of first appearance."""
        for input_id, row in self._rows.get(model, {}).items():
            yield input_id, self._entry(row)

    def counts(self, offset: int, value: Mapping[str, Any]) -> bool:
        """Return whether the line that begins at an offset is the one that counts for its key."""
        row = self._rows.get(value["model"], {}).get(value["input_id"])
        return row is not None and self._offsets[row] == offset

    def _is_equal(self, row: int, value: Mapping[str, Any]) -> bool:
        """Compare content: with the line on disk where there is one to read again, else by hash."""
        if self._path is None:
            return hash(content_bytes(value)) == self._hashes[row]
        if self._stream is None:
            self._stream = self._path.open("rb")
        self._stream.seek(self._offsets[row])
        stored = parse_object(self._stream.readline().removesuffix(b"\n"))
        return content_bytes(stored) == content_bytes(value)

    def _first_line(self, row: int) -> str:
        if self._file is None:
            return ""
        return f" (first in line {JsonlReader(self._file).number_at(self._offsets[row])})"

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _group(self, value: Mapping[str, Any]) -> _Group:
        """Return what a checked record shares with others: few groups, many records."""
        version, size = value.get(OVERWRITES, 0), len(value["completions"])
        data = dump_json(value["identity"], sort_keys=True)
        identity = self._identities.setdefault(data, value["identity"])
        kind = self._kind_of.get((version, size, data))
        if kind is None:
            kind = self._kind_of[(version, size, data)] = len(self._entries)
            self._entries.append(Entry(version, size, identity))
        rows = self._rows.setdefault(value["model"], {})
        return _Group(value["model"], rows, kind, version, size, identity)

    def _version(self, row: int) -> int:
        return self._entries[self._kinds[row]].version

    def _entry(self, row: int) -> Entry:
        return self._entries[self._kinds[row]]
