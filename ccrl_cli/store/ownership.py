"""What a file is before something is written to it: a store of ours, or somebody else's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ccrl_cli.errors import UsageError
from ccrl_cli.store.encoding import load_json

_LONGEST_LINE = 64 * 2**20
_BEGIN, _BYTE_ORDER_MARK = b'{"schema"', b"\xef\xbb\xbf"


def check_writable_store(path: Path) -> None:
    """Raise UsageError if a file that a store would be written to is there and is none.

    An empty file, and one with nothing but the torn beginning of a record, are stores.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    line, whole = _first_line(path)
    value = _object(line) if whole else None
    torn = not whole and any(
        line[: len(begin)] == begin[: len(line)] for begin in (_BEGIN, _BYTE_ORDER_MARK + _BEGIN)
    )
    if not torn and not _is_record(value):
        raise UsageError(
            f"{path} is no store of ccrl: nothing is written to it",
            hint="name another file: --store FILE, or generation.store in the profile",
        )


def refuse_over_store(path: Path) -> None:
    """Raise UsageError if a file that is to be replaced by something else is a store."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    line, _ = _first_line(path)
    if _is_record(_object(line)):
        raise UsageError(
            f"{path} is a store of completions: nothing else is written over it",
            hint="name another file with --output",
        )


def _first_line(path: Path) -> tuple[bytes, bool]:
    """Return the first line that is not blank, and whether it has an end."""
    with path.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if line.strip():
                return line, line.endswith(b"\n")
    return b"", False


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = load_json(line.removeprefix(_BYTE_ORDER_MARK))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_record(value: dict[str, Any] | None) -> bool:
    return value is not None and {"schema", "input_id", "completions"} <= set(value)
