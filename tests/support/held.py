"""Stand-ins for a program that has files open on Windows: renames of them are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ccrl_cli import files

SHARING_VIOLATION = 32


def refused(code: int = SHARING_VIOLATION) -> OSError:
    """Return the error with which Windows refuses to touch an open file."""
    error = OSError(22, "is open")
    error.winerror = code
    return error


def hold(
    monkeypatch: Any,
    held: Callable[[Path, Path], bool],
    code: int = SHARING_VIOLATION,
    times: int | None = None,
) -> list[tuple[Path, Path]]:
    """Refuse the renames (source, target) that `held` picks, at most some times; return them."""
    calls: list[tuple[Path, Path]] = []
    real = Path.replace

    def replace(source: Path, target: Path) -> Path:
        if held(source, Path(target)) and (times is None or len(calls) < times):
            calls.append((source, Path(target)))
            raise refused(code)
        return real(source, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(files, "_FIRST_WAIT_SECONDS", 0.0)
    return calls
