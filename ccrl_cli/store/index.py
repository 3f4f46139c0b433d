"""What a store holds, in about 200 bytes a record: keys, places and digests, no texts.

A key is (input, model). Records of one key carry a version, the number in their field
``overwrites`` (0 if absent); the highest version is the one that counts. So a reader needs no
order of lines, and merging stays independent of the order of files.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccrl_cli.store.codec import OVERWRITES, check_fields, content_bytes
from ccrl_cli.store.encoding import dump_json
from ccrl_cli.store.jsonl import JsonlReader, Line, bad_line


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

    Attributes:
        num_lines: lines added.
        num_duplicates: lines equal to an earlier one, times and durations aside.
        num_replaced: lines that a later version replaced.
        torn_bytes: bytes of a torn last line, when the index was scanned from a file.
    """

    def __init__(self) -> None:
        self.num_lines = 0
        self.num_duplicates = 0
        self.num_replaced = 0
        self.torn_bytes = 0
        self._rows: dict[str, dict[str, int]] = {}
        self._numbers = array("q")
        self._offsets = array("q")
        self._contents = array("q")
        self._versions = array("i")
        self._sizes = array("i")
        self._identity_of = array("i")
        self._identities: list[Mapping[str, Any]] = []
        self._identity_numbers: dict[bytes, int] = {}

    @classmethod
    def scan(cls, path: Path) -> StoreIndex:
        """Read a whole store; a missing file is an empty store.

        Raises:
            IntegrityError: a line is bad, or contradicts an earlier one of its key and version.
        """
        index = cls()
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
        version = value.get(OVERWRITES, 0)
        content = hash(content_bytes(value))
        self.num_lines += 1
        rows = self._rows.setdefault(model, {})
        row = rows.get(input_id)
        if row is None:
            rows[input_id] = self._new_row()
            self._set_row(rows[input_id], line, value, version, content)
            return
        if version == self._versions[row]:
            if content != self._contents[row]:
                raise ValueError(
                    f"input {input_id} by {model} is stored twice with different content "
                    f"(first in line {self._numbers[row]})"
                )
            self.num_duplicates += 1
            return
        self.num_replaced += 1
        if version > self._versions[row]:
            self._set_row(row, line, value, version, content)

    def find(self, input_id: str, model: str) -> Entry | None:
        """Return the record that counts for a key, or None."""
        row = self._rows.get(model, {}).get(input_id)
        return None if row is None else self._entry(row)

    def has_input(self, input_id: str) -> bool:
        """Return whether any model has labelled the input."""
        return any(input_id in rows for rows in self._rows.values())

    def has_content(self, input_id: str, model: str, content: int) -> bool:
        """Return whether the record that counts for a key has this hash of its content."""
        row = self._rows.get(model, {}).get(input_id)
        return row is not None and self._contents[row] == content

    def entries(self, model: str) -> Iterator[tuple[str, Entry]]:
        """Yield (input id, entry) of one model in order of first appearance."""
        for input_id, row in self._rows.get(model, {}).items():
            yield input_id, self._entry(row)

    def counts(self, line: Line, value: Mapping[str, Any]) -> bool:
        """Return whether this very line is the one that counts for its key."""
        row = self._rows.get(value["model"], {}).get(value["input_id"])
        return row is not None and self._offsets[row] == line.offset

    def _new_row(self) -> int:
        for column in (self._numbers, self._offsets, self._contents):
            column.append(0)
        for column in (self._versions, self._sizes, self._identity_of):
            column.append(0)
        return len(self._numbers) - 1

    def _set_row(
        self, row: int, line: Line, value: Mapping[str, Any], version: int, content: int
    ) -> None:
        self._numbers[row] = line.number
        self._offsets[row] = line.offset
        self._contents[row] = content
        self._versions[row] = version
        self._sizes[row] = len(value["completions"])
        self._identity_of[row] = self._number_of(value["identity"])

    def _number_of(self, identity: Mapping[str, Any]) -> int:
        key = dump_json(identity, sort_keys=True)
        number = self._identity_numbers.get(key)
        if number is None:
            number = self._identity_numbers[key] = len(self._identities)
            self._identities.append(identity)
        return number

    def _entry(self, row: int) -> Entry:
        return Entry(
            number=self._numbers[row],
            offset=self._offsets[row],
            version=self._versions[row],
            num_completions=self._sizes[row],
            identity=self._identities[self._identity_of[row]],
        )
