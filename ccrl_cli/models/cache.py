"""Where converted models and unfinished downloads lie.

Models of the hub stay in the hub's own cache (``HF_HOME``), which other tools share.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ccrl_cli.errors import PreconditionError
from ccrl_cli.reporting import Reporter

VARIABLE = "CCRL_CACHE"
_RESERVE_BYTES = 64 * 1024**2


def cache_root() -> Path:
    r"""Return the cache folder; it need not exist.

    ``$CCRL_CACHE``, else the platform's place: ``$XDG_CACHE_HOME/ccrl`` or ``~/.cache/ccrl``,
    ``~/Library/Caches/ccrl`` on macOS, ``%LOCALAPPDATA%\ccrl\cache`` on Windows.
    """
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "ccrl" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ccrl"
    base = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification: a relative path is to be ignored.
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "ccrl"


def models_folder() -> Path:
    """Return the folder of converted models, one folder each."""
    return cache_root() / "models"


def downloads_folder() -> Path:
    """Return the folder of unfinished downloads; emptied when their model is ready."""
    return cache_root() / "downloads"


def check_free_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Check that the disk of a folder (which need not exist yet) has room.

    Raises:
        PreconditionError: there is too little; both sizes are named.
    """
    existing = folder.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes + _RESERVE_BYTES:
        raise PreconditionError(
            f"{what} needs {format_bytes(needed_bytes)}, and {folder} has "
            f"{format_bytes(free)} left",
            hint=f"free some space, or point {VARIABLE} (hub models: HF_HOME) to another disk",
        )


@contextmanager
def preparing(target: Path, reporter: Reporter) -> Iterator[bool]:
    """Hold the lock of a folder in the cache, waiting for another process that has it.

    The system frees the lock when its process dies.

    Yields:
        True if the folder must still be made, False if it is there (made meanwhile, perhaps).

    Raises:
        PreconditionError: the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(target.parent / f".{target.name}.lock")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.info(f"waiting for another process that prepares {target.name}")
            lock.acquire()
    except OSError as error:
        raise PreconditionError(
            f"the cache {target.parent} cannot be written: {error}",
            hint=f"point {VARIABLE} (hub models: HF_HOME) to a folder that you may write to",
        ) from error
    try:
        yield not target.exists()
    finally:
        lock.release()


def format_bytes(count: int) -> str:
    """Return a size as the hub writes it: decimal units, three digits (``98.4 MB``)."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB" if size < 999.5 else f"{size / 1000:.3g} TB"
