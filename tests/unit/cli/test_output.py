"""Messages, progress, tables and JSON values of the command line."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from ccrl_cli.cli import output
from ccrl_cli.cli.output import (
    ConsoleReporter,
    Mode,
    Outcome,
    document,
    duration,
    format_table,
    format_values,
    plain,
    write_document,
    write_line,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


def written(target: io.TextIOWrapper) -> str:
    target.flush()
    return target.buffer.getvalue().decode(target.encoding)


def reporter(mode: Mode | None = None) -> tuple[ConsoleReporter, io.StringIO, Clock]:
    target, clock = io.StringIO(), Clock()
    return ConsoleReporter(mode or Mode(), target, clock), target, clock


def test_levels():
    for mode, expected in [
        (Mode(), ["info", "warning: warn"]),
        (Mode(quiet=True), ["warning: warn"]),
        (Mode(verbose=1), ["info", "debug", "warning: warn"]),
    ]:
        made, target, _ = reporter(mode)
        made.info("info")
        made.debug("debug")
        made.warn("warn")
        assert target.getvalue().splitlines() == expected
        assert made.warnings == ["warn"]


def test_a_line_every_30_seconds():
    made, target, clock = reporter()
    with made.progress(10, "generate") as progress:
        for _ in range(10):  # at 8, 16, ..., 80 s; lines at 32 and 64
            clock.now += 8
            progress.advance(loss=0.25)
    # 4 in 32 s is 0.125/s, so 6 more need 48 s; 8 in 64 s, so 2 more need 16 s
    assert target.getvalue().splitlines() == [
        "generate: 4/10 samples (40%), 0.125 samples/s, 48.0 s left, loss=0.25",
        "generate: 8/10 samples (80%), 0.125 samples/s, 16.0 s left, loss=0.25",
        "generate: 10/10 samples (100%) in 1 min 20 s, loss=0.25",
    ]


def test_progress_of_unknown_length():
    made, target, clock = reporter()
    with made.progress(None, "read", "lines") as progress:
        clock.now += 40
        progress.advance(20)
    assert target.getvalue().splitlines() == [
        "read: 20 lines, 0.5 lines/s",
        "read: 20 lines in 40.0 s",
    ]


@pytest.mark.parametrize("target", [io.StringIO(), Terminal()])
def test_work_that_fails_says_how_far_it_came(target):
    made = ConsoleReporter(Mode(), target, Clock())

    def fail() -> None:
        with made.progress(4, "train", "steps") as progress:
            progress.advance()
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert target.getvalue().rstrip().endswith("train: 1/4 steps (25%), stopped")


def test_quiet_progress_is_silent():
    made, target, clock = reporter(Mode(quiet=True))
    with made.progress(2, "generate") as progress:
        clock.now += 60
        progress.advance(2)
    assert target.getvalue() == ""


def test_bars_on_a_terminal_with_messages_and_nesting(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    target = Terminal()
    made = ConsoleReporter(Mode(color=False), target, Clock())
    with made.progress(2, "outer") as outer, made.progress(1, "inner") as inner:
        made.info("[a] message")
        inner.advance(loss=0.5)
        outer.advance(2)
    text = target.getvalue()
    assert "[a] message" in text
    assert "inner: 1/1 samples (100%) in 0.0 s, loss=0.5" in text
    assert text.rstrip().endswith("outer: 2/2 samples (100%) in 0.0 s")


def test_colours_only_where_wanted(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    def warned(mode: Mode) -> str:
        target = Terminal()
        ConsoleReporter(mode, target).warn("x")
        return target.getvalue()

    assert warned(Mode()) == "\x1b[33mwarning:\x1b[0m x\n"
    assert warned(Mode(color=False)) == "warning: x\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert warned(Mode()) == "warning: x\n"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "✓ a → b … 東"),
        ("ascii", "ok a -> b ... \\u6771"),
        ("cp1252", "ok a -> b ... \\u6771"),
    ],
)
def test_glyphs_have_fallbacks(encoding, expected):
    target = stream(encoding)
    write_line("✓ a → b … 東", target)
    assert written(target) == expected + "\n"


@dataclass(frozen=True)
class Part:
    score: float
    where: Path


def test_plain_values():
    value = {
        "part": Part(float("nan"), Path("a/b")),
        "array": np.array([1.5, 2.5]),
        "scalar": np.float64(0.5),
        "count": np.int64(3),
        "proxy": MappingProxyType({1: (True, None)}),
        "set": {"b", "a"},
    }
    assert plain(value) == {
        "part": {"score": None, "where": str(Path("a/b"))},
        "array": [1.5, 2.5],
        "scalar": 0.5,
        "count": 3,
        "proxy": {"1": [True, None]},
        "set": ["a", "b"],
    }
    with pytest.raises(TypeError, match="object cannot be written"):
        plain(object())


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
@pytest.mark.parametrize("text", ["東 → é", "\udcff", "a\u2028b\n"])
def test_documents_are_one_line_of_json_on_every_stream(encoding, text):
    target = stream(encoding)
    content = document("run", Outcome(result={"x": text}), ["w"])
    write_document(content, target)
    line = written(target)
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "schema": 1,
        "command": "run",
        "status": "done",
        "result": {"x": text},
        "counts": {},
        "warnings": ["w"],
    }


def test_run_dir_is_there_when_there_is_one():
    assert document("run", Outcome(run_dir="runs/a"), [])["run_dir"] == "runs/a"


def test_format_table():
    table = format_table(("name", "f1"), [("a", 0.5), ("longer", 0.123456)])
    assert table.splitlines() == [
        "name        f1",
        "------  ------",
        "a          0.5",
        "longer  0.1235",
    ]
    assert format_table(("a", "b"), []) == "a  b\n-  -"
    assert format_table(("a",), [(None,), (True,)]).splitlines()[2:] == ["", "yes"]


def test_format_values():
    assert format_values({"a": 1, "b": 0.25, "c": [1, 2]}) == "a: 1\nb: 0.25\nc: [1, 2]"
    assert format_values(None) == ""
    assert format_values("text") == "text"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.24, "4.2 s"), (65, "1 min 05 s"), (3599.7, "1 h 00 min"), (7830, "2 h 10 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("system", "chosen", "terminal", "escaped"),
    [
        ("posix", None, False, False),
        ("nt", None, False, True),
        ("nt", "utf-8", False, False),
        ("nt", ":replace", False, True),
        ("nt", None, True, False),
    ],
)
def test_json_for_another_program_of_windows_is_ascii(
    monkeypatch, system, chosen, terminal, escaped
):
    target = stream("utf-8")
    target.isatty = lambda: terminal
    if chosen is None:
        monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    else:
        monkeypatch.setenv("PYTHONIOENCODING", chosen)
    with monkeypatch.context() as patch:
        patch.setattr(output.os, "name", system)
        line = output.json_line({"text": "Müller"}, target)
    assert line == ('{"text": "M\\u00fcller"}' if escaped else '{"text": "Müller"}')
    assert json.loads(line) == {"text": "Müller"}


def test_names_from_files_cannot_steer_a_terminal():
    table = format_table(("type", "n"), [("LOC\x1b[2J\x1b]0;x\x07", 1), ("a\u202eb\n", 2)])
    assert "\x1b" not in table
    assert "LOC\\x1b[2J\\x1b]0;x\\x07" in table
    assert "a\\u202eb\\n" in table
    assert len(table.split("\n")) == 4
