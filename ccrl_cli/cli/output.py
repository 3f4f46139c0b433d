"""What the user sees: the result on stdout, once, at the end; everything else on stderr."""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import PurePath
from typing import Any, Literal, TextIO

from ccrl_cli.cli.streams import may_be_misread, takes_escapes
from ccrl_cli.reporting import Progress

SCHEMA = 1
SECONDS_BETWEEN_LINES = 30.0
Status = Literal["done", "nothing", "partial", "interrupted", "error"]

_FALLBACKS = str.maketrans(
    {
        "✓": "ok",
        "✗": "x",
        "→": "->",
        "…": "...",
        "—": "-",
        "–": "-",
        "−": "-",
        "·": "-",
        "×": "x",
        "≥": ">=",
        "±": "+-",
        "█": "#",
    }
)


@dataclass(frozen=True, slots=True)
class Mode:
    """How much is shown, and how.

    Attributes:
        json: the result is one JSON document.
        quiet: warnings and errors alone on stderr.
        verbose: 1 shows details, 2 those of libraries too.
        color: colours are allowed (a stream that is no terminal never gets them).
    """

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    color: bool = True


@dataclass(slots=True)
class Outcome:
    """The result of a command, until it is written.

    Attributes:
        result: what was asked for; written as the JSON document's ``result``.
        counts: what was done, skipped, repaired, left over.
        text: the result for a reader; None writes the values of `result` line by line.
    """

    status: Status = "done"
    result: Any = None
    counts: Mapping[str, Any] = field(default_factory=dict)
    run_dir: str | None = None
    text: str | None = None


def printable(text: str, stream: TextIO) -> str:
    """Return the text as the stream can print it: glyphs it lacks become plain characters."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        plain = text.translate(_FALLBACKS)
        return plain.encode("ascii", "backslashreplace").decode("ascii")
    return text


def write_line(text: str, stream: TextIO) -> None:
    """Write a line and flush."""
    stream.write(printable(text, stream) + "\n")
    stream.flush()


def paint(text: str, code: str, stream: TextIO, mode: Mode) -> str:
    """Return the text in an ANSI style, if the stream is a terminal and colours are allowed."""
    shown = mode.color and not os.environ.get("NO_COLOR") and takes_escapes(stream)
    return f"\x1b[{code}m{text}\x1b[0m" if shown else text


def plain(value: Any) -> Any:
    """Return a value in terms of JSON: dataclasses and models as objects, NaN as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def document(
    command: str,
    outcome: Outcome,
    warnings: Sequence[str],
    error: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the one JSON document of a command."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "status": outcome.status,
        "result": plain(outcome.result),
        "counts": plain(outcome.counts),
        "warnings": list(warnings),
    }
    if outcome.run_dir is not None:
        content["run_dir"] = outcome.run_dir
    if error is not None:
        content["error"] = dict(error)
    return content


def write_document(content: Mapping[str, Any], stream: TextIO) -> None:
    """Write a JSON document; characters the stream cannot hold are escaped."""
    stream.write(json_line(content, stream) + "\n")
    stream.flush()


def json_line(content: Mapping[str, Any], stream: TextIO) -> str:
    """Return a JSON object in one line; characters that could get lost are escaped."""
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    # A lone surrogate (an undecodable byte of a file name) has no utf-8 form either.
    if not unicode or may_be_misread(stream) or not _encodable(text):
        text = json.dumps(content, ensure_ascii=True, allow_nan=False)
    return text


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def format_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return an aligned plain-text table; columns of numbers are set flush right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        for index in range(len(columns))
    ]
    lines = [list(columns), ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def format_values(value: Any) -> str:
    """Return a result for a reader: one ``name: value`` line for each entry."""
    content = plain(value)
    if isinstance(content, dict):
        return "\n".join(f"{name}: {_cell(item)}" for name, item in content.items())
    return "" if content is None else _cell(content)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple | dict):
        return json.dumps(plain(value), ensure_ascii=False)
    return "" if value is None else _visible(str(value))


def _visible(text: str) -> str:
    """Return a text from a file or a server without characters that would steer a terminal."""
    return _CONTROL.sub(lambda match: ascii(match.group())[1:-1], text)


class ConsoleReporter:
    """Messages and progress on stderr: bars on a terminal, else a line every 30 seconds."""

    def __init__(
        self,
        mode: Mode,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.mode = mode
        self.warnings: list[str] = []
        self._stream = stream or sys.stderr
        self._clock = clock
        self._bars: Any = None

    def info(self, message: str) -> None:
        """Say what happens now, unless quiet."""
        if not self.mode.quiet:
            self._write(message)

    def debug(self, message: str) -> None:
        """Say a detail, if verbose."""
        if self.mode.verbose:
            self._write(message)

    def warn(self, message: str) -> None:
        """Say what the user should know, and keep it for the JSON document."""
        self.warnings.append(message)
        said = "\n".join(map(_visible, message.split("\n")))
        self._write(paint("warning:", "33", self._stream, self.mode) + f" {said}")

    @contextmanager
    def progress(
        self, total: int | None, description: str, unit: str = "samples"
    ) -> Iterator[Progress]:
        """Show a piece of work while it runs, and one line when it ends."""
        piece = _Piece(total, description, unit, self._clock)
        if takes_escapes(self._stream) and not self.mode.quiet:
            with self._bar(piece) as bar:
                yield bar
            return
        line = _LineProgress(piece, self.info)
        try:
            yield line
        except BaseException:
            self.info(f"{piece.status()}, stopped")
            raise
        self.info(piece.summary())

    @contextmanager
    def _bar(self, piece: _Piece) -> Iterator[Progress]:
        outer = self._bars
        if outer is None:
            self._bars = _new_bars(self._stream, self.mode)
            self._bars.start()
        last = ""
        try:
            yield _BarProgress(piece, self._bars)
            last = piece.summary()
        finally:
            if outer is None:
                self._bars.stop()
                self._bars = None
            self.info(last or f"{piece.status()}, stopped")

    def _write(self, message: str) -> None:
        if self._bars is None:
            with suppress(BrokenPipeError):  # a stream of the caller's own, and its reader is gone
                write_line(message, self._stream)
        else:
            from rich.text import Text

            self._bars.console.print(Text.from_ansi(printable(message, self._stream)))


class _Piece:
    """Count, rate and fields of one piece of work."""

    def __init__(
        self, total: int | None, description: str, unit: str, clock: Callable[[], float]
    ) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.clock = clock
        self.started = clock()
        self.done = 0
        self.fields: dict[str, object] = {}

    def add(self, count: int, fields: Mapping[str, object]) -> None:
        self.done += count
        self.fields.update(fields)

    def seconds(self) -> float:
        return self.clock() - self.started

    def details(self) -> str:
        return " ".join(f"{name}={_cell(value)}" for name, value in self.fields.items())

    def status(self) -> str:
        if self.total is None:
            return f"{self.description}: {self.done} {self.unit}"
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        return f"{self.description}: {self.done}/{self.total} {self.unit}{share}"

    def summary(self) -> str:
        return f"{self.status()} in {duration(self.seconds())}" + (
            f", {self.details()}" if self.fields else ""
        )


class _LineProgress:
    """A line every 30 seconds, with rate and time left."""

    def __init__(self, piece: _Piece, say: Callable[[str], None]) -> None:
        self._piece = piece
        self._say = say
        self._spoke = piece.started

    def advance(self, count: int = 1, **fields: object) -> None:
        piece = self._piece
        piece.add(count, fields)
        now = piece.clock()
        if now - self._spoke < SECONDS_BETWEEN_LINES:
            return
        self._spoke = now
        rate = piece.done / piece.seconds()
        parts = [piece.status(), f"{rate:.3g} {piece.unit}/s"]
        if piece.total is not None and rate and piece.done < piece.total:
            parts.append(f"{duration((piece.total - piece.done) / rate)} left")
        if piece.fields:
            parts.append(piece.details())
        self._say(", ".join(parts))


class _BarProgress:
    """One bar of the terminal display."""

    def __init__(self, piece: _Piece, bars: Any) -> None:
        self._piece = piece
        self._bars = bars
        self._task = bars.add_task(piece.description, total=piece.total, details="")

    def advance(self, count: int = 1, **fields: object) -> None:
        self._piece.add(count, fields)
        self._bars.update(self._task, advance=count, details=self._piece.details())


def _new_bars(stream: TextIO, mode: Mode) -> Any:
    """Return rich's progress display on a stream, erased when it ends."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    # Not left to rich, which asks Windows about stdout, whatever it writes to.
    console = Console(
        file=stream, no_color=not mode.color or None, highlight=False, legacy_windows=False
    )
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[details]}"),
        console=console,
        transient=True,
    )


def duration(seconds: float) -> str:
    """Return seconds as a reader says them: ``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
