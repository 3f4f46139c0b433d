"""Reading files that may be compressed; a stream cut short is an error, never a shorter file."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, Any, cast

from ccrl_cli.errors import PreconditionError

COMPRESSED_SUFFIXES = (".gz", ".zst")
BLOCK_BYTES = 1 << 20


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, uncompressed on the way if it ends in ``.gz`` or ``.zst``.

    Reading a damaged stream raises EOFError, zlib.error or gzip.BadGzipFile.

    Raises:
        PreconditionError: the file does not exist, or zstandard is needed and missing.
    """
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if path.suffix == ".zst":
            return cast(IO[bytes], io.BufferedReader(_ZstandardStream(path), BLOCK_BYTES))
        return path.open("rb", buffering=BLOCK_BYTES)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise PreconditionError(
            f"{path} cannot be read: {error.strerror}", hint="check the path of the file"
        ) from error


class _ZstandardStream(io.RawIOBase):
    """Uncompressed bytes of one or more frames; the package's own reader hides a missing end."""

    _source: IO[bytes] | None = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import zstandard
        except ImportError as error:
            raise PreconditionError(
                f"{path} needs the package zstandard to be read", hint="`pip install zstandard`"
            ) from error
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._failure: type[Exception] = zstandard.ZstdError
        self._source = path.open("rb")
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._source is not None:
            block = self._source.read(BLOCK_BYTES)
            if not block:
                if self._frame is not None:
                    raise EOFError("the last frame has no end")
                return 0
            self._ready = memoryview(self._decompress(block))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        super().close()

    def _decompress(self, block: bytes) -> bytes:
        parts = []
        while block:
            if self._frame is None:
                self._frame = self._new_frame()
            try:
                parts.append(self._frame.decompress(block))
            except self._failure as error:
                raise EOFError(str(error)) from error
            if not self._frame.eof:
                break
            block = self._frame.unused_data
            self._frame = None
        return b"".join(parts)
