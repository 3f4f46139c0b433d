"""Merging stores and shards: the same result in any order, and again when repeated."""

from __future__ import annotations

import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ccrl_cli.errors import IntegrityError, UsageError
from ccrl_cli.store.atomic import replacing
from ccrl_cli.store.codec import OVERWRITES, check_fields, content_bytes
from ccrl_cli.store.compressed import COMPRESSED_SUFFIXES, open_bytes
from ccrl_cli.store.jsonl import JsonlReader, Line, bad_line, cut_torn_line
from ccrl_cli.store.locks import WriterLock


@dataclass(frozen=True, slots=True)
class MergeReport:
    """What a merge read and wrote.

    Attributes:
        path: the merged store.
        sources: files read, the merged store itself last if it held records before.
        lines: complete lines read.
        records: lines written, overwritten versions included.
        duplicates: lines that another line equalled, time and duration aside.
        torn_bytes: bytes of torn last lines that were left out.
    """

    path: Path
    sources: tuple[Path, ...]
    lines: int
    records: int
    duplicates: int
    torn_bytes: int


def merge(paths: Sequence[Path], out: Path) -> MergeReport:
    """Write the union of stores to ``out``, records already there included.

    Lines are ordered by input id, model and version, so the bytes written depend on the records
    alone. Of equal records the one with the smaller line is kept. Overwritten versions stay:
    nothing is deleted. Sources are not changed; ``out`` is replaced atomically.

    Raises:
        UsageError: no path is given, or ``out`` is compressed.
        PreconditionError: a source is missing, or ``out`` has another writer.
        IntegrityError: a line is bad, or two records of a pair and version differ.
    """
    out = Path(out)
    if not paths:
        raise UsageError("no store to merge is named", hint="`ccrl store merge SHARD...`")
    if out.suffix in COMPRESSED_SUFFIXES:
        raise UsageError(f"{out} would be compressed", hint="name a .jsonl file to merge into")
    with WriterLock(out), replacing(out) as temporary, ExitStack() as stack:
        # The sources, `out` among them, are closed before it is replaced: Windows wants it so.
        torn = cut_torn_line(out) if out.exists() else 0
        sources = _distinct(paths, out)
        folder = out.resolve().parent
        plain = [stack.enter_context(_seekable(path, folder)) for path in sources]
        union = _Union(sources, [stack.enter_context(open_bytes(path)) for path in plain])
        for number, path in enumerate(plain):
            torn += union.read(number, path)
        with temporary.open("wb") as stream:
            stream.writelines(union.lines())
    return MergeReport(
        path=out,
        sources=tuple(sources),
        lines=union.num_lines,
        records=len(union),
        duplicates=union.num_lines - len(union),
        torn_bytes=torn,
    )


class _Union:
    """Places of the distinct records of several files."""

    def __init__(self, names: Sequence[Path], streams: Sequence[IO[bytes]]) -> None:
        self.num_lines = 0
        self._names = names
        self._streams = streams
        self._rows: dict[str, dict[tuple[str, int], int]] = {}
        self._files = array("i")
        self._offsets = array("q")
        self._numbers = array("q")
        self._contents = array("q")

    def __len__(self) -> int:
        return len(self._files)

    def read(self, file: int, path: Path) -> int:
        """Take in one file; return the bytes of its torn last line."""
        reader = JsonlReader(path)
        with closing(reader.objects()) as objects:  # the file too, when a line is refused
            for line, value in objects:
                try:
                    check_fields(value)
                except ValueError as error:
                    raise bad_line(self._names[file], line.number, str(error)) from error
                self._add(file, line, value)
                self.num_lines += 1
        return reader.torn_bytes

    def lines(self) -> Iterator[bytes]:
        """Yield the lines to write, in the order that their records define."""
        keys = sorted(
            (input_id, model, version, row)
            for model, rows in self._rows.items()
            for (input_id, version), row in rows.items()
        )
        for *_, row in keys:
            yield self._line(row)

    def _add(self, file: int, line: Line, value: dict[str, Any]) -> None:
        rows = self._rows.setdefault(value["model"], {})
        key = (value["input_id"], value.get(OVERWRITES, 0))
        content = hash(content_bytes(value))
        row = rows.get(key)
        if row is None:
            rows[key] = len(self._files)
            self._files.append(file)
            self._offsets.append(line.offset)
            self._numbers.append(line.number)
            self._contents.append(content)
        elif content != self._contents[row]:
            raise IntegrityError(
                f"{self._names[file]}, line {line.number}, and {self._names[self._files[row]]}, "
                f"line {self._numbers[row]}: different completions of input {key[0]} by "
                f"{value['model']}",
                hint="keep the file that is right, or generate again with --overwrite",
            )
        elif line.data + b"\n" < self._line(row):
            self._files[row] = file
            self._offsets[row] = line.offset
            self._numbers[row] = line.number

    def _line(self, row: int) -> bytes:
        stream = self._streams[self._files[row]]
        stream.seek(self._offsets[row])
        return stream.readline()


def _distinct(paths: Sequence[Path], out: Path) -> list[Path]:
    """Return the files to read, each once, the merged store last if it exists."""
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(os.path.realpath(path), Path(path))
    files.pop(os.path.realpath(out), None)
    return [*files.values(), *([out] if out.exists() else [])]


@contextmanager
def _seekable(path: Path, folder: Path) -> Iterator[Path]:
    """Yield a file to read at any place: the file itself, or an uncompressed temporary copy."""
    if path.suffix not in COMPRESSED_SUFFIXES:
        open_bytes(path).close()
        yield path
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".merge-") as temporary:
        copy = Path(temporary) / path.stem
        with open_bytes(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy
