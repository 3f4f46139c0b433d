"""Files that are either the old version or the new one, never a part of it."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ccrl_cli.errors import HeldError
from ccrl_cli.files import move
from ccrl_cli.store.encoding import dump_json


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it takes the target's place when the block ends.

    On any exception the temporary file is removed and the target stays as it was. A symbolic
    link is followed, so the file it points to is replaced and the link stays.

    Raises:
        HeldError: another program has the target open. The temporary file stays, and is named.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    owner = f"{os.getpid()}-{threading.get_ident()}"
    temporary = target.with_name(f".{target.name}.{owner}.tmp")
    try:
        yield temporary
        _sync_file(temporary)
        move(temporary, target)
    except HeldError:
        raise
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically and durably (flushed, renamed, folder flushed)."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; line ends are written as they are given."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document atomically, indented, with a final newline."""
    write_bytes(path, dump_json(value, indent=True) + b"\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write JSON Lines atomically."""
    write_bytes(path, b"".join(dump_json(value) + b"\n" for value in values))


def sync_directory(folder: Path) -> None:
    """Flush a folder, so that new names in it survive a power cut; does nothing on Windows."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without folder sync
            raise
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
