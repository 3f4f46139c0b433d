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
from typing import Any

from ccrl_cli.store.codec import OVERWRITES, check_fields, content_bytes
from ccrl_cli.store.compressed import COMPRESSED_SUFFIXES
from ccrl_cli.store.encoding import dump_json
from ccrl_cli.store.jsonl import JsonlReader, Line, bad_line, parse_object


@dataclass(frozen=True, slots=True)
class Entry:
    """The record that counts for one key.

    Attributes:
        number: line number, from 1.
        offset: byte position of the line.
        version: how often the key was overwritten before this record.
        num_completions: K of this record.
    """

    number: int
    offset: int
    version: int
    num_completions: int
    identity: Mapping[str, Any]


class StoreIndex:
    """Keys of a store, filled line by line.

    Args:
        path: the file the lines come from, to compare a repeated key with its first line. Without
            it, or for a compressed file, the content of each line is hashed instead.

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
        self._path = path if path and path.suffix not in COMPRESSED_SUFFIXES else None
        self._rows: dict[str, dict[str, int]] = {}
        self._numbers = array("q")
        self._offsets = array("q")
        self._hashes = array("q")
        self._kinds = array("q")
        self._kind_of: dict[tuple[int, int, bytes], int] = {}
        self._kind_values: list[tuple[int, int, Mapping[str, Any]]] = []
        self._identities: dict[bytes, Mapping[str, Any]] = {}

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
        for line, value in reader.objects():
            try:
                index.add(line, value)
            except ValueError as error:
                raise bad_line(path, line.number, str(error)) from error
        index.torn_bytes = reader.torn_bytes
        return index

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    @property
    def models(self) -> tuple[str, ...]:
        """Models in order of first appearance."""
        return tuple(self._rows)

    def add(self, line: Line, value: Mapping[str, Any]) -> None:
        """Take in one line.

        Raises:
            ValueError: the line is no record, or another record of its key and version differs.
        """
        check_fields(value)
        input_id, model = value["input_id"], value["model"]
        self.num_lines += 1
        rows = self._rows.get(model)
        if rows is None:
            rows = self._rows[model] = {}
        row = rows.get(input_id)
        if row is None:
            rows[input_id] = len(self._numbers)
            self._numbers.append(line.number)
            self._offsets.append(line.offset)
            self._hashes.append(self._hash(line, value))
            self._kinds.append(self._kind(value))
            return
        version, stored = value.get(OVERWRITES, 0), self._version(row)
        if version == stored:
            if not self._is_equal(row, line, value):
                raise ValueError(
                    f"input {input_id} by {model} is stored twice with different content "
                    f"(first in line {self._numbers[row]})"
                )
            self.num_duplicates += 1
            return
        self.num_replaced += 1
        if version > stored:
            self._numbers[row] = line.number
            self._offsets[row] = line.offset
            self._hashes[row] = self._hash(line, value)
            self._kinds[row] = self._kind(value)

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
        return row is not None and self._is_equal(row, None, value)

    def input_ids(self, model: str) -> Collection[str]:
        """Return the inputs that a model has labelled, in order of first appearance."""
        return self._rows.get(model, {}).keys()

    def entries(self, model: str) -> Iterator[tuple[str, Entry]]:
        """Yield (input id, entry) of one model in order of first appearance."""
        for input_id, row in self._rows.get(model, {}).items():
            yield input_id, self._entry(row)

    def counts(self, line: Line, value: Mapping[str, Any]) -> bool:
        """Return whether this very line is the one that counts for its key."""
        row = self._rows.get(value["model"], {}).get(value["input_id"])
        return row is not None and self._offsets[row] == line.offset

    def _hash(self, line: Line, value: Mapping[str, Any]) -> int:
        return hash(line.data if self._path is not None else content_bytes(value))

    def _is_equal(self, row: int, line: Line | None, value: Mapping[str, Any]) -> bool:
        """Compare content: by hash where that settles it, else with the line on disk."""
        if self._path is None:
            return hash(content_bytes(value)) == self._hashes[row]
        if line is not None and hash(line.data) == self._hashes[row]:
            return True
        with self._path.open("rb") as stream:
            stream.seek(self._offsets[row])
            stored = parse_object(stream.readline().removesuffix(b"\n"))
        return content_bytes(stored) == content_bytes(value)

    def _kind(self, value: Mapping[str, Any]) -> int:
        """Return the number of a (version, K, identity): few of them, many records."""
        identity = dump_json(value["identity"], sort_keys=True)
        key = (value.get(OVERWRITES, 0), len(value["completions"]), identity)
        number = self._kind_of.get(key)
        if number is None:
            number = self._kind_of[key] = len(self._kind_values)
            known = self._identities.setdefault(identity, value["identity"])
            self._kind_values.append((key[0], key[1], known))
        return number

    def _version(self, row: int) -> int:
        return self._kind_values[self._kinds[row]][0]

    def _entry(self, row: int) -> Entry:
        version, num_completions, identity = self._kind_values[self._kinds[row]]
        return Entry(self._numbers[row], self._offsets[row], version, num_completions, identity)
