"""What a pipeline tells its caller while it works: messages, warnings, progress.

The command line shows them on stderr; tests and library callers pass a `NullReporter`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """One running piece of work."""

    def advance(self, count: int = 1, **fields: object) -> None:
        """Say that `count` more units are done; `fields` (loss, rate, ...) are shown beside."""


class Reporter(Protocol):
    """The one way out of a pipeline besides its return value."""

    def info(self, message: str) -> None:
        """Say what happens now; hidden by ``--quiet``."""

    def debug(self, message: str) -> None:
        """Say a detail; shown by ``--verbose`` alone."""

    def warn(self, message: str) -> None:
        """Say what the user should know; also part of the JSON document."""

    def progress(
        self, total: int | None, description: str, unit: str = "samples"
    ) -> AbstractContextManager[Progress]:
        """Open a piece of work of `total` units (None: unknown)."""


@dataclass(slots=True)
class NullProgress:
    """Progress that is counted and shown nowhere."""

    total: int | None = None
    description: str = ""
    done: int = 0
    fields: dict[str, object] = field(default_factory=dict)

    def advance(self, count: int = 1, **fields: object) -> None:
        """Add to `done` and keep the newest fields."""
        self.done += count
        self.fields.update(fields)


@dataclass(slots=True)
class NullReporter:
    """A reporter that keeps what it is told."""

    messages: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    pieces: list[NullProgress] = field(default_factory=list)

    def info(self, message: str) -> None:
        """Keep a message."""
        self.messages.append(message)

    def debug(self, message: str) -> None:
        """Keep a detail."""
        self.details.append(message)

    def warn(self, message: str) -> None:
        """Keep a warning."""
        self.warnings.append(message)

    @contextmanager
    def progress(
        self, total: int | None, description: str, unit: str = "samples"
    ) -> Iterator[NullProgress]:
        """Keep a piece of work."""
        piece = NullProgress(total, f"{description} [{unit}]")
        self.pieces.append(piece)
        yield piece
