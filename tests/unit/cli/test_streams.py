"""stdout and stderr: encodings that others misread, readers that leave, terminals."""

from __future__ import annotations

import io
import json
import sys

import pytest
import rich.console

from ccrl_cli.cli import streams
from ccrl_cli.cli.output import ConsoleReporter, Mode, json_line, paint


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
    target = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    target.isatty = lambda: terminal
    if chosen is None:
        monkeypatch.delenv("PYTHONIOENCODING", raising=False)
    else:
        monkeypatch.setenv("PYTHONIOENCODING", chosen)
    with monkeypatch.context() as patch:
        patch.setattr(streams.os, "name", system)
        line = json_line({"text": "Müller"}, target)
    assert line == ('{"text": "M\\u00fcller"}' if escaped else '{"text": "Müller"}')
    assert json.loads(line) == {"text": "Müller"}


def refusing(monkeypatch, file, number):
    """Return a lasting stream on a file that takes nothing."""

    def refuse(self, data):
        raise OSError(number, "refused")

    lasting = streams._lasting(file)
    lasting.write("taken\n")
    lasting.flush()
    monkeypatch.setattr(streams._Lasting, "_put", refuse)
    lasting.write("refused\n")
    return lasting


@pytest.mark.parametrize("number", [22, 32])
def test_a_pipe_that_nobody_reads_is_called_two_ways(tmp_path, monkeypatch, number):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        lasting = refusing(monkeypatch, file, number)
        lasting.flush()
        monkeypatch.undo()
        lasting.write("after\n")
        lasting.flush()
    assert (tmp_path / "out").read_text() == "taken\n"


def test_a_full_disk_is_remembered_and_stops_nothing(tmp_path, monkeypatch):
    with (tmp_path / "out").open("w", encoding="utf-8") as file:
        lasting = refusing(monkeypatch, file, 28)
        lasting.flush()
        monkeypatch.undo()
        monkeypatch.setattr(sys, "stdout", lasting)
        assert streams.stdout_failure().errno == 28


class Console(io.StringIO):
    """A console of Windows; `obeys`: escape sequences, once it is asked to."""

    obeys = True

    def isatty(self):
        return True


@pytest.fixture
def windows(monkeypatch):
    """As on Windows with stdout redirected: rich asks there, and finds no console at all."""
    asked = []

    def switch_on(stream):
        asked.append(stream)
        return stream.obeys

    monkeypatch.setattr(streams.sys, "platform", "win32")
    monkeypatch.setattr(streams, "_switch_on_escapes", switch_on, raising=False)
    monkeypatch.setattr(rich.console, "detect_legacy_windows", lambda: True)
    monkeypatch.setattr(rich.console, "WINDOWS", False)  # so that no handle is asked for colours
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return asked


def test_colours_follow_the_stream_that_is_written(windows):
    console = Console()
    assert paint("error:", "31", console, Mode()) == "\x1b[31merror:\x1b[0m"
    console.obeys = False
    assert paint("error:", "31", console, Mode()) == "error:"
    assert windows == [console, console]


def test_bars_are_erased_where_stderr_alone_is_a_console(windows):
    console = Console()
    with ConsoleReporter(Mode(), console).progress(2, "generate") as piece:
        piece.advance(1)
    assert "\x1b[2K" in console.getvalue(), "the bar was not erased"
    assert "\x1b[?25h" in console.getvalue(), "the cursor was not given back"


def test_a_console_that_obeys_no_escapes_gets_lines(windows):
    console = Console()
    console.obeys = False
    with ConsoleReporter(Mode(), console).progress(2, "generate") as piece:
        piece.advance(2)
    assert "\x1b" not in console.getvalue()
    assert "generate: 2/2 samples (100%)" in console.getvalue()
