"""Reading files that may be compressed; a stream cut short is an error, never a shorter file."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from pathlib import Path
from typing import IO, cast

from ccrl_cli.errors import PreconditionError

try:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
except ImportError:
    zstd = None  # type: ignore[assignment]

COMPRESSED_SUFFIXES = (".gz", ".zst")
BLOCK_BYTES = 1 << 20

DAMAGED: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading a damaged stream raises."""
if zstd is not None:
    DAMAGED += (zstd.ZstdError,)


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file for reading, uncompressed on the way if it ends in ``.gz`` or ``.zst``.

    Reading a damaged stream raises one of ``DAMAGED``.

    Raises:
        PreconditionError: the file does not exist, or Zstandard is needed and missing.
    """
    if path.suffix == ".zst" and zstd is None:
        raise PreconditionError(
            f"{path} needs the package backports.zstd to be read",
            hint="`pip install backports.zstd`",
        )
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if path.suffix == ".zst":
            return cast(IO[bytes], io.BufferedReader(zstd.ZstdFile(path), BLOCK_BYTES))
        return path.open("rb", buffering=BLOCK_BYTES)
    except OSError as error:  # a name with * too, which no shell of Windows has expanded
        raise PreconditionError(
            f"{path} cannot be read: {error.strerror}", hint="check the path of the file"
        ) from error
