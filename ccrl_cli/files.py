"""Renames that wait for other programs, and folders that are replaced whole or not at all.

On Windows a file that another program has open can be neither replaced nor removed, and a folder
with such a file in it cannot be renamed. A virus scanner lets go after a moment; an editor
does not.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ccrl_cli.errors import HeldError, PreconditionError

_ATTEMPTS = 10
_FIRST_WAIT_SECONDS = 0.02
_HELD = (5, 32, 1224)  # access denied, sharing violation, user-mapped file


def move(source: Path, target: Path) -> None:
    """Rename over the target; wait about four seconds for a program that holds one of the two.

    Raises:
        HeldError: it is held for longer; the source is left where it lies, and named.
    """
    wait = _FIRST_WAIT_SECONDS
    for attempt in range(_ATTEMPTS):
        try:
            source.replace(target)
        except OSError as error:
            if getattr(error, "winerror", None) not in _HELD:
                raise
            if attempt == _ATTEMPTS - 1:
                raise HeldError(
                    f"{target if target.exists() else source} is open in another program",
                    hint=f"close it and repeat; the new one lies in {source}",
                ) from error
            time.sleep(wait)
            wait = min(wait * 2, 1.0)
        else:
            return


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target that takes its place when the block ends.

    The old folder is set aside, the new one moves in, and then the old one is removed. On any
    exception the target stays as it was. A symbolic link is followed, so the folder it points to
    is replaced and the link stays.

    Raises:
        PreconditionError: the folder cannot be made.
        HeldError: another program holds the old folder or the new one. The old one is in its
            place, the new one beside it, and named.
    """
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    fresh = _unused(target, "new")
    try:
        fresh.mkdir(parents=True)
    except OSError as error:
        raise PreconditionError(
            f"{target} cannot be written: {error.strerror}",
            hint="name another folder, or check that you may write there",
        ) from error
    try:
        yield fresh
        _sync(fresh)
        _exchange(fresh, target)
    except HeldError:
        raise
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _exchange(fresh: Path, target: Path) -> None:
    """Put one folder in the place of another; the old one comes back if that fails."""
    if not target.exists():
        move(fresh, target)
        return
    old = _unused(target, "old")
    try:
        move(target, old)
    except HeldError as error:
        hint = f"close it and repeat; the new one lies in {fresh}"
        raise HeldError(error.message, hint=hint) from error
    try:
        move(fresh, target)
    except BaseException:
        move(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what is held now goes at the next replacement


def _unused(target: Path, suffix: str) -> Path:
    """Return a hidden name beside the target that is free; what an earlier call left is removed."""
    for number in count(1):
        path = target.with_name(f".{target.name}.{suffix}" + (f"-{number}" if number > 1 else ""))
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path):
            return path
    raise AssertionError


def _sync(folder: Path) -> None:
    """Flush the files of a folder, so that a power cut after the rename loses nothing."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
