"""The store of completions: what is there, what is owed, and adding to it without loss.

One JSON line a record, appended and on disk when ``append`` returns. Opened plainly a store is
read; as a context manager it is written, by one process at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.records import Record
from ccrl_cli.store.codec import (
    OVERWRITES,
    identity_differences,
    record_from_json,
    record_to_json,
)
from ccrl_cli.store.export import ExportReport, Format, export_records
from ccrl_cli.store.index import Entry, StoreIndex
from ccrl_cli.store.inspection import StoreInfo, Verification, store_info, verify_store
from ccrl_cli.store.jsonl import JsonlReader, JsonlWriter, bad_line
from ccrl_cli.store.ownership import check_writable_store, refuse_over_store
from ccrl_cli.store.shards import shard_of, shard_path

Skip = Literal["pair", "input"]
_MAX_SHOWN = 6


class CompletionStore:
    """Completions by (input, model) in one file.

    Args:
        path: the store, or with ``shard`` the store that the shard will be merged into.
        shard: (I, N), I from 1: write ``<store>.I-of-N.jsonl`` and owe only the inputs of this
            shard; what the whole store already holds counts as stored.

    Attributes:
        path: the file that is read and written.
        torn_bytes: bytes of a torn last line that were left out, or cut off when writing.
    """

    def __init__(self, path: Path, *, shard: tuple[int, int] | None = None) -> None:
        self.path = Path(path) if shard is None else shard_path(Path(path), *shard)
        self.torn_bytes = 0
        self._shard = shard
        self._base_path = Path(path) if shard else None
        self._base = StoreIndex()
        self._index: StoreIndex | None = None
        self._was_empty = True
        self._writer: JsonlWriter | None = None
        self._mutex = threading.Lock()

    def __enter__(self) -> CompletionStore:
        check_writable_store(self.path)
        self._writer = JsonlWriter(self.path)
        try:
            self._index = None
            self._scan()
            self.torn_bytes = self._writer.torn_bytes
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush, and give the lock back; safe to call twice, and on a store only read."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    @property
    def index(self) -> StoreIndex:
        """Keys, versions and identities; the file is scanned once, at the first use.

        Raises:
            IntegrityError: a line is bad or contradicts an earlier one.
        """
        return self._index if self._index is not None else self._scan()

    @property
    def models(self) -> tuple[str, ...]:
        """Models that the file has records of, in order of first appearance."""
        return self.index.models

    def __len__(self) -> int:
        """Return the number of (input, model) pairs."""
        return len(self.index)

    def owed(
        self,
        inputs: Iterable[str],
        model: str,
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        skip: Skip = "pair",
        max_samples: int | None = None,
    ) -> list[str]:
        """Return the input ids that still need completions by a model, in the order given.

        Args:
            inputs: input ids in the order of the data; a repeated id is one input.
            model: name that the records will carry.
            identity: settings that the records will carry.
            resume: leave out pairs that are stored.
            overwrite: owe stored pairs too. With ``resume``: only those under another identity,
                which continues an interrupted overwrite.
            skip: ``pair`` looks at this model alone; ``input`` leaves out every input that some
                model has labelled, and by that adds to a store that is not empty.
            max_samples: consider the first M inputs of the data only; stored ones count.

        Raises:
            UsageError: flags contradict each other, or the store held records when it was
                opened and nothing says what to do with them.
            IntegrityError: a pair is stored under another identity.
        """
        _check_flags(overwrite, skip, max_samples)
        self._scan_once()
        if not (self._was_empty or resume or overwrite or skip == "input"):
            raise UsageError(
                f"{self.path} already holds completions",
                hint="continue with --resume, replace with --overwrite, or name another store",
            )
        owed = []
        differing: dict[int, dict[str, tuple[Any, Any]]] = {}  # by object: an index keeps few
        for input_id in self._considered(inputs, max_samples):
            entry = self._find(input_id, model)
            if entry is None:
                if not (skip == "input" and self._has_input(input_id)):
                    owed.append(input_id)
            elif overwrite and not resume:
                owed.append(input_id)
            else:
                key = id(entry.identity)
                if key not in differing:
                    differing[key] = identity_differences(entry.identity, identity)
                if differing[key]:
                    if not overwrite:
                        raise self._mismatch(input_id, model, differing[key])
                    owed.append(input_id)
        return owed

    def count_considered(self, inputs: Iterable[str], max_samples: int | None = None) -> int:
        """Return how many distinct inputs ``owed`` looks at: the first M, those of the shard."""
        return sum(1 for _ in self._considered(inputs, max_samples))

    def append(self, record: Record, *, overwrite: bool = False) -> None:
        """Store one record; it is on disk when this returns. Safe to call from threads.

        A record equal to the stored one of its pair (time and duration aside) is not written
        again. One that overwrites carries ``overwrites``, one more than the record it replaces.

        Raises:
            IntegrityError: the pair is stored with other content and ``overwrite`` is off.
            PartialError: the disk is full or failed; what was stored before is safe.
        """
        if self._writer is None:
            raise RuntimeError(f"{self.path} is not open for writing")
        with self._mutex:
            entry = self._find(record.input_id, record.model)
            if entry is not None:
                if overwrite:
                    extra = {**record.extra, OVERWRITES: entry.version + 1}
                    record = replace(record, extra=extra)
                elif self._is_stored(record, entry):
                    return
                else:
                    raise IntegrityError(
                        f"{self.path} already holds other completions of input "
                        f"{record.input_id} by {record.model}",
                        hint="repeat with --overwrite to replace them, or name another store",
                    )
            value = record_to_json(record)
            offset = self._writer.append(value)
            self.index.add(offset, value)

    def records(self, models: Collection[str] | None = None) -> Iterator[Record]:
        """Yield the record that counts for each pair, in the order of the file.

        Args:
            models: only records by these; None for all.

        Raises:
            PreconditionError: the file does not exist.
            IntegrityError: a line is bad.
        """
        self.require()
        index = self.index
        reader = JsonlReader(self.path)
        for offset, value in reader.decoded():
            try:
                if (models is None or value["model"] in models) and index.counts(offset, value):
                    yield record_from_json(value)
            except (ValueError, KeyError) as error:
                raise bad_line(self.path, reader.number_at(offset), str(error)) from error

    def require(self) -> None:
        """Raise PreconditionError if the file does not exist."""
        if not self.path.exists():
            raise PreconditionError(
                f"{self.path} does not exist", hint="`ccrl generate` writes completions"
            )

    def info(self) -> StoreInfo:
        """Return counts by model and identity; raises PreconditionError if the file is missing."""
        self.require()
        return store_info(self.path, self.index)

    def verify(self, *, repair: bool = False) -> Verification:
        """Check every line; with ``repair`` move bad ones to a side file (see verify_store)."""
        found = verify_store(self.path, repair=repair)
        if repair:
            self._index = None
        return found

    def export(
        self, path: Path, format: Format | None = None, models: Collection[str] | None = None
    ) -> ExportReport:
        """Write the records that count as JSON Lines or Parquet (see export_records).

        Raises:
            UsageError: the path is this store, or another one.
        """
        self.require()
        refuse_over_store(path)
        return export_records(self.records(models), path, format)

    def _scan_once(self) -> None:
        if self._index is None:
            self._scan()

    def _scan(self) -> StoreIndex:
        index = StoreIndex.scan(self.path)
        if self._base_path is not None:
            self._base = StoreIndex.scan(self._base_path)
        self._index = index
        self.torn_bytes = index.torn_bytes
        self._was_empty = not len(index) and not len(self._base)
        return index

    def _considered(self, inputs: Iterable[str], max_samples: int | None) -> Iterator[str]:
        """Yield the first M distinct inputs, those of other shards left out afterwards."""
        first = islice(dict.fromkeys(inputs), max_samples)
        if self._shard is None:
            return first
        number, count = self._shard
        return (input_id for input_id in first if shard_of(input_id, count) == number)

    def _find(self, input_id: str, model: str) -> Entry | None:
        """Return the highest version of a pair in this file and the store it belongs to."""
        own = self.index.find(input_id, model)
        base = self._base.find(input_id, model)
        if own is None or (base is not None and base.version > own.version):
            return base
        return own

    def _has_input(self, input_id: str) -> bool:
        return self.index.has_input(input_id) or self._base.has_input(input_id)

    def _is_stored(self, record: Record, entry: Entry) -> bool:
        """Return whether the stored record of the pair has the content of this one."""
        version = {OVERWRITES: entry.version} if entry.version else {}
        value = record_to_json(replace(record, extra={**record.extra, **version}))
        return self.index.holds(value) or self._base.holds(value)

    def _mismatch(
        self, input_id: str, model: str, differences: Mapping[str, tuple[Any, Any]]
    ) -> IntegrityError:
        shown = [
            f"{key} is {stored!r} in the store and {wanted!r} now"
            for key, (stored, wanted) in islice(differences.items(), _MAX_SHOWN)
        ]
        if len(differences) > _MAX_SHOWN:
            shown.append(f"{len(differences) - _MAX_SHOWN} more")
        return IntegrityError(
            f"{self.path} holds input {input_id} by {model} under other settings: "
            + "; ".join(shown),
            hint="go back to those settings, replace with --overwrite, or name another store",
        )


def _check_flags(overwrite: bool, skip: Skip, max_samples: int | None) -> None:
    if max_samples is not None and max_samples < 1:
        raise UsageError(f"--max-samples is {max_samples}", hint="give a number from 1 up")
    if overwrite and skip == "input":
        raise UsageError(
            "--overwrite and --skip input contradict each other",
            hint="give one: replace what is stored, or leave labelled inputs out",
        )
