"""JSON Lines that survive a crash: append-only writing, and reading split on byte newline alone.

A line is complete when its newline is on disk. What follows the last newline is a torn line:
a reader leaves it out and counts it, a writer moves it to ``<name>.torn`` before it appends.
Lines are never split at U+2028, U+0085 or a carriage return, which may stand inside a text.
"""

from __future__ import annotations

import codecs
import io
import os
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, cast

import orjson

from ccrl_cli.errors import DataError, IntegrityError, PartialError, PreconditionError, UsageError
from ccrl_cli.store.atomic import sync_directory
from ccrl_cli.store.compressed import BLOCK_BYTES, COMPRESSED_SUFFIXES, DAMAGED, open_bytes
from ccrl_cli.store.encoding import dump_json, load_json
from ccrl_cli.store.locks import WriterLock

_NEWLINE = 10


class Line(NamedTuple):
    """One complete line.

    Attributes:
        number: counted from 1.
        offset: byte position of its start in the uncompressed file.
        data: its bytes without the newline.
    """

    number: int
    offset: int
    data: bytes


class JsonlReader:
    """Complete lines of a file, plain, ``.gz`` or ``.zst``; each iteration reads it anew.

    Attributes:
        torn_bytes: bytes after the last newline, known when an iteration has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.torn_bytes = 0

    def __iter__(self) -> Iterator[Line]:
        """Yield complete lines.

        Raises:
            PreconditionError: the file does not exist, or Zstandard is needed and missing.
            DataError: the file is UTF-16.
            IntegrityError: the compressed stream is damaged.
        """
        self.torn_bytes = 0
        number = offset = 0
        try:
            with open_bytes(self.path) as stream:
                offset = self._skip_mark(stream)
                for raw in stream:
                    number += 1
                    if not raw.endswith(b"\n"):
                        self.torn_bytes = len(raw)
                        return
                    yield Line(number, offset, raw[:-1])
                    offset += len(raw)
        except DAMAGED as error:
            raise self._damage(f"line {number}", error) from error

    def objects(self) -> Generator[tuple[Line, dict[str, Any]], None, None]:
        """Yield each line with its JSON object.

        Raises:
            IntegrityError: a line is not a JSON object; file and line number are named.
        """
        for line in self:
            yield line, self._decode(line.data, line.offset, line.number)

    def raw(self) -> Iterator[tuple[int, bytes]]:
        """Yield offset and bytes, with the newline, of each line: for millions of them.

        One loop, and no copy of the line; the number of a line is counted when it is asked for.

        Raises:
            PreconditionError: the file does not exist, or Zstandard is needed and missing.
            DataError: the file is UTF-16.
            IntegrityError: the compressed stream is damaged.
        """
        self.torn_bytes = offset = 0
        try:
            with open_bytes(self.path) as stream:
                offset = self._skip_mark(stream)
                for raw in stream:
                    if raw[-1] != _NEWLINE:
                        self.torn_bytes = len(raw)
                        return
                    yield offset, raw
                    offset += len(raw)
        except DAMAGED as error:
            raise self._damage(f"byte {offset}", error) from error

    def decoded(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield offset and JSON object of each line: ``objects`` for millions of lines.

        Raises:
            IntegrityError: a line is not a JSON object, or the compressed stream is damaged.
        """
        for offset, raw in self.raw():
            value = self.decode(raw, offset)
            yield offset, value
            del value  # so that the next line finds its memory: a tenth of the time

    def decode(self, raw: bytes, offset: int) -> dict[str, Any]:
        """Return the JSON object of a line from ``raw``, given with its offset.

        Raises:
            IntegrityError: it is none; file and line number are named.
        """
        try:
            value = orjson.loads(raw)
        except ValueError:
            value = None
        if type(value) is dict:
            return value
        return self._decode(raw[:-1], offset)

    def number_at(self, offset: int) -> int:
        """Return the number of the line that begins at a byte offset."""
        number, rest = 1, offset
        with open_bytes(self.path) as stream:
            while rest and (block := stream.read(min(rest, BLOCK_BYTES))):
                number += block.count(b"\n")
                rest -= len(block)
        return number

    def _skip_mark(self, stream: IO[bytes]) -> int:
        """Pass a byte order mark by, which editors and PowerShell 5.1 write; return its bytes."""
        begin = cast(io.BufferedReader, stream).peek(len(codecs.BOM_UTF8))
        if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(
                f"{self.path} is UTF-16, not UTF-8",
                hint="save it as UTF-8; `>` of Windows PowerShell writes UTF-16, "
                "`| Out-File -Encoding utf8` does not",
            )
        return len(stream.read(3)) if begin.startswith(codecs.BOM_UTF8) else 0

    def _decode(self, data: bytes, offset: int, number: int | None = None) -> dict[str, Any]:
        """Decode one line; IntegrityError with its number if it is bad."""
        try:
            return parse_object(data)
        except ValueError as error:
            place = number or self.number_at(offset)
            raise bad_line(self.path, place, str(error)) from error

    def _damage(self, place: str, error: Exception) -> IntegrityError:
        return IntegrityError(
            f"{self.path}: the compressed stream is damaged after {place}: {error}",
            hint="restore the file from the copy it was compressed from",
        )


class JsonlWriter:
    """Appends JSON objects to a file that only this object may write (see WriterLock).

    Safe to share between threads. Use as a context manager, or call ``close``.

    Args:
        path: the file; it and its folder are created if missing.
        fsync: wait for the disk on every append; off for telemetry, where the system's cache is
            enough to survive the process.

    Attributes:
        torn_bytes: bytes of a torn last line that were moved to ``<name>.torn`` on opening.

    Raises:
        PreconditionError: another writer holds the file, or it cannot be written.
        UsageError: the file is compressed and can only be read.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self.path = Path(path)
        if self.path.suffix in COMPRESSED_SUFFIXES:
            raise UsageError(
                f"{self.path} is compressed and can only be read",
                hint="uncompress it first, or write to a .jsonl file",
            )
        self._fsync = fsync
        self._mutex = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._lock = WriterLock(self.path)
        self._lock.acquire()
        try:
            is_new = not self.path.exists()
            self.torn_bytes = 0 if is_new else cut_torn_line(self.path)
            self._stream = self.path.open("ab", buffering=0)
            if is_new:
                sync_directory(self.path.parent)
        except BaseException as error:
            self.close()
            if isinstance(error, PermissionError | IsADirectoryError):
                raise PreconditionError(
                    f"{self.path} cannot be written: {error.strerror}",
                    hint="check the permissions, or name another file",
                ) from error
            raise

    def append(self, value: dict[str, Any]) -> int:
        """Write one line; it is on disk when this returns.

        Returns:
            The byte position of the line's start.

        Raises:
            PartialError: the disk is full or failed; the file ends with the previous line.
        """
        data = dump_json(value) + b"\n"
        with self._mutex:
            if self._stream is None:
                raise RuntimeError(f"{self.path} is closed for writing")
            start = os.fstat(self._stream.fileno()).st_size
            try:
                _write_all(self._stream, data)
                if self._fsync:
                    os.fsync(self._stream.fileno())
            except BaseException as error:
                self._take_back(start)
                if isinstance(error, OSError):
                    raise PartialError(
                        f"{self.path} cannot grow beyond {start} bytes: {error.strerror}",
                        hint="free some space and repeat the command with --resume",
                    ) from error
                raise
            return start

    def close(self) -> None:
        """Flush to disk, close the file and give the lock back; safe to call twice."""
        with self._mutex:
            stream, self._stream = self._stream, None
            try:
                if stream is not None:
                    try:
                        os.fsync(stream.fileno())
                    finally:
                        stream.close()
            finally:
                self._lock.release()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_back(self, start: int) -> None:
        """Cut a half-written line; if even that fails, write no more (the next opening cuts it)."""
        stream = self._stream
        if stream is None:
            return
        try:
            os.ftruncate(stream.fileno(), start)
        except OSError:
            self._stream = None
            stream.close()


def parse_object(data: bytes) -> dict[str, Any]:
    """Decode a line that must be a JSON object; raises ValueError otherwise."""
    value = load_json(data)
    if isinstance(value, dict):
        return value
    raise ValueError(f"a JSON object was expected, not {type(value).__name__}")


def bad_line(path: Path, number: int, reason: str) -> IntegrityError:
    """Return the error for a line that cannot be used, with the command that moves it aside."""
    return IntegrityError(
        f"{path}, line {number}: {reason}",
        hint=f"`ccrl store verify --repair {path}` moves bad lines to a side file",
    )


def cut_torn_line(path: Path) -> int:
    """Move what follows the last newline to ``<name>.torn``; return how many bytes that was.

    The caller holds the writer's lock. The side file is on disk before the file is cut.
    """
    with path.open("r+b") as stream:
        size = stream.seek(0, os.SEEK_END)
        end = _end_of_last_line(stream, size)
        if end == size:
            return 0
        stream.seek(end)
        append_bytes(path.with_name(path.name + ".torn"), stream.read() + b"\n")
        stream.truncate(end)
        os.fsync(stream.fileno())
    return size - end


def append_bytes(path: Path, data: bytes) -> None:
    """Append to a side file and wait for the disk."""
    with path.open("ab") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _end_of_last_line(stream: IO[bytes], size: int) -> int:
    """Return the position after the last newline, read backwards in blocks; 0 if there is none."""
    position = size
    while position > 0:
        start = max(0, position - BLOCK_BYTES)
        stream.seek(start)
        found = stream.read(position - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def _write_all(stream: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[stream.write(view) :]
