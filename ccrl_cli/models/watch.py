"""Progress of a download that another program or library writes to disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ccrl_cli.reporting import Progress, Reporter

_SECONDS_BETWEEN_LOOKS = 0.5
_MEGABYTE = 1000**2


@contextmanager
def watch_growth(
    folder: Path, total_bytes: int | None, description: str, reporter: Reporter
) -> Iterator[None]:
    """Report how much the files below a folder grow while the block runs, in megabytes.

    Args:
        folder: where the bytes arrive; it need not exist yet.
        total_bytes: growth to expect, or None if it is unknown.
        description: what is downloaded.
        reporter: where progress goes.
    """
    total = None if total_bytes is None else max(1, round(total_bytes / _MEGABYTE))
    with reporter.progress(total, description, "MB") as piece:
        growth = _Growth(folder, piece, total)
        finished = threading.Event()

        def look() -> None:
            while not finished.wait(_SECONDS_BETWEEN_LOOKS):
                growth.look()

        thread = threading.Thread(target=look, name="download-progress", daemon=True)
        thread.start()
        try:
            yield
            growth.complete()
        finally:
            finished.set()
            thread.join()


class _Growth:
    """Megabytes that arrived since the beginning; never goes back, never beyond the total."""

    def __init__(self, folder: Path, piece: Progress, total: int | None) -> None:
        self._folder = folder
        self._piece = piece
        self._total = total
        self._start = _size_below(folder)
        self._shown = 0
        self._lock = threading.Lock()

    def look(self) -> None:
        self._show((_size_below(self._folder) - self._start) // _MEGABYTE)

    def complete(self) -> None:
        if self._total is None:
            self.look()
        else:
            self._show(self._total)

    def _show(self, megabytes: int) -> None:
        with self._lock:
            if self._total is not None:
                megabytes = min(megabytes, self._total)
            if megabytes > self._shown:
                self._piece.advance(megabytes - self._shown)
                self._shown = megabytes


def _size_below(folder: Path) -> int:
    """Return the bytes of all files below a folder; files may come and go meanwhile."""
    size = 0
    try:
        for path in folder.rglob("*"):
            try:
                if not path.is_symlink() and path.is_file():
                    size += path.stat().st_size
            except OSError:
                continue
    except OSError:
        return size
    return size
