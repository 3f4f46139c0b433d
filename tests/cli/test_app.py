"""The root command: error boundary, exits, JSON contract, table of commands."""

from __future__ import annotations

import errno
import json
import os
import pkgutil
import signal
import subprocess
import sys
from importlib import import_module
from types import ModuleType
from typing import Annotated

import pytest
import typer

import ccrl_cli.cli.commands
from ccrl_cli import __version__, errors
from ccrl_cli.cli.app import COMMANDS, app, invoke
from ccrl_cli.cli.options import Invocation, command, new_app, setting

KEYS = {"schema", "command", "status", "result", "counts", "warnings"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")  # what --no-color sets is undone with it


@pytest.fixture
def probe(monkeypatch):
    """Register a command ``ccrl probe`` that runs a given function."""

    def register(body, *settings):
        module = ModuleType("probe")
        module.app = new_app()  # type: ignore[attr-defined]

        @command(module.app, "probe", *settings)  # type: ignore[attr-defined]
        def probe(
            invocation: Invocation,
            word: Annotated[str, typer.Argument()] = "none",
            count: Annotated[int, typer.Option("--count")] = 1,
        ) -> None:
            """Probe."""
            body(invocation, word, count)

        monkeypatch.setitem(COMMANDS, "probe", "Probe.")
        monkeypatch.setitem(sys.modules, "ccrl_cli.cli.commands.probe", module)

    return register


def raising(error: BaseException):
    def body(invocation: Invocation, word: str, count: int) -> None:
        invocation.reporter.warn("careful")
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "kind", "status"),
    [
        (errors.UsageError("m", hint="h"), 2, "usage", "error"),
        (errors.ProfileError("m", hint="h"), 2, "profile", "error"),
        (errors.DataError("m", hint="h"), 2, "data", "error"),
        (errors.PreconditionError("m", hint="h"), 3, "precondition", "error"),
        (errors.PartialError("m", hint="h"), 4, "partial", "partial"),
        (errors.IntegrityError("m", hint="h"), 5, "integrity", "error"),
        (errors.InterruptedRunError("m", hint="h"), 130, "interrupted", "interrupted"),
        (errors.CcrlError("m", hint="h"), 1, "error", "error"),
    ],
)
def test_expected_errors(probe, capsys, error, code, kind, status):
    probe(raising(error))
    assert invoke(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["warning: careful", "error: m", "hint: h"]

    assert invoke(["probe", "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "schema": 1,
        "command": "probe",
        "status": status,
        "result": None,
        "counts": {},
        "warnings": ["careful"],
        "error": {"kind": kind, "message": "m", "hint": "h"},
    }
    assert err.splitlines() == ["warning: careful", "error: m", "hint: h"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EOFError("ended"), 5, "ended before its content did"),
        (OSError(errno.ENOSPC, "No space left on device", "st.jsonl"), 3, "st.jsonl cannot be"),
        (OSError(errno.EROFS, "Read-only file system", "x"), 3, "x cannot be written: Read-only"),
    ],
)
def test_damaged_files_and_full_disks_are_no_bugs_and_no_interruptions(
    probe, capsys, error, code, said
):
    probe(raising(error))
    assert invoke(["probe"]) == code
    assert said in capsys.readouterr().err


def test_bugs_show_a_traceback_and_still_one_document(probe, capsys):
    probe(raising(ZeroDivisionError("oops")))
    assert invoke(["probe", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["kind"] == "bug"
    assert "Traceback" in err
    assert "ZeroDivisionError: oops" in err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_interrupts(probe, capsys, error):
    probe(raising(error))
    assert invoke(["probe", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["status"] == "interrupted"


def test_sigterm_is_an_interrupt(probe, capsys):
    probe(lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert invoke(["probe"]) == 130
    assert "error: interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_pattern_that_nobody_expands_is_a_usage_error(probe, capsys):
    """Windows calls such a name an invalid argument."""
    probe(raising(OSError(22, "Invalid argument", "runs/*.jsonl")))
    assert invoke(["probe"]) == 2
    assert "runs/*.jsonl is no name of a file" in capsys.readouterr().err
    probe(raising(OSError(22, "Invalid argument", "runs/a.jsonl")))
    assert invoke(["probe"]) == 1


def test_a_closed_server_connection_is_not_a_reader_that_left(probe, capsys):
    probe(raising(BrokenPipeError("peer")))
    assert invoke(["probe"]) == 3
    assert "closed a connection" in capsys.readouterr().err


def test_results(probe, capsys):
    def body(invocation: Invocation, word: str, count: int) -> None:
        invocation.finish(
            {"word": word}, counts={"done": count}, text=f"the {word}", run_dir="runs/x"
        )

    probe(body)
    assert invoke(["probe", "thing", "--count", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "command": "probe",
        "status": "done",
        "result": {"word": "thing"},
        "counts": {"done": 3},
        "warnings": [],
        "run_dir": "runs/x",
    }
    assert invoke(["probe", "thing"]) == 0
    assert capsys.readouterr().out == "the thing\n"


def test_default_text_of_a_result(probe, capsys):
    probe(lambda invocation, *_: invocation.finish({"a": 1, "b": 0.5}))
    assert invoke(["probe"]) == 0
    assert capsys.readouterr().out == "a: 1\nb: 0.5\n"


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("nothing", 0), ("partial", 4)])
def test_status_of_a_result(probe, capsys, status, code):
    probe(lambda invocation, *_: invocation.finish({}, status=status))
    assert invoke(["probe", "--json"]) == code
    assert json.loads(capsys.readouterr().out)["status"] == status


def test_result_that_is_no_json_is_one_error_document(probe, capsys):
    probe(lambda invocation, *_: invocation.finish({"x": object()}))
    assert invoke(["probe", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "bug"


def test_settings_reach_the_profile(probe, capsys):
    seen = []

    def body(invocation: Invocation, word: str, count: int) -> None:
        seen.append(invocation.load(run__seed=count))

    probe(
        body,
        setting("training.epochs", float, "Passes."),
        setting("generation.models", list[str], "Model.", "--model"),
        setting("curriculum.gate", bool, "Gate.", "--gate/--no-gate"),
    )
    words = ["probe", "--epochs", "2", "--model", "a", "--model", "b", "--no-gate", "--count", "7"]
    assert invoke([*words, "--set", "training.epochs=9", "--set", "training.beta=0.5"]) == 0
    (loaded,) = seen
    assert loaded.profile.training.epochs == 2
    assert loaded.profile.training.beta == 0.5
    assert loaded.profile.generation.models == ("a", "b")
    assert loaded.profile.curriculum.gate is False
    assert loaded.profile.run.seed == 7
    assert loaded.origins["training.epochs"] == "flag --epochs"
    assert loaded.origins["generation.models"] == "flag --model"
    assert loaded.origins["curriculum.gate"] == "flag --gate"
    assert loaded.origins["training.beta"] == "--set"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["profil"], "No such command 'profil'. Did you mean 'profile'?"),
        (["profile", "shaw"], "Did you mean 'show'?"),
        (["profile", "show", "--bogus"], "No such option: --bogus"),
        (["probe", "--count", "many"], "Invalid value for '--count'"),
    ],
)
def test_usage_errors(probe, capsys, words, message):
    probe(lambda *_: None)
    assert invoke(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert "hint: see `ccrl" in err
    assert invoke([*words, "--json"]) == 2
    content = json.loads(capsys.readouterr().out)
    assert set(content) == {*KEYS, "error"}
    assert content["error"]["kind"] == "usage"
    assert message in content["error"]["message"]


def test_verbose_shows_the_traceback_of_an_expected_error(probe, capsys):
    probe(raising(errors.UsageError("m")))
    assert invoke(["probe", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_version_and_help(capsys):
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"ccrl {__version__}\n"
    for words in ([], ["--help"], ["profile"], ["profile", "--help"], ["profile", "show", "-h"]):
        assert invoke(words) == 0
        assert "Usage: ccrl" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_are_as_the_table_says(name):
    module = import_module(f"ccrl_cli.cli.commands.{name}")
    registered = module.app.registered_commands
    info = module.app.info.help
    text = info if isinstance(info, str) else registered[0].callback.__doc__
    assert text.strip().splitlines()[0] == COMMANDS[name]


def test_every_command_module_is_in_the_table():
    modules = {item.name for item in pkgutil.iter_modules(ccrl_cli.cli.commands.__path__)}
    assert modules == set(COMMANDS)
    assert [item.name for item in app.registered_commands] == list(COMMANDS)


def test_flags_set_keys_that_exist():
    from ccrl_cli.config.load import schema_fields

    known = {".".join(key) for key, _ in schema_fields()}
    for name in COMMANDS:
        module = import_module(f"ccrl_cli.cli.commands.{name}")
        for registered in module.app.registered_commands:
            assert {item.key for item in registered.callback.settings} <= known


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "ccrl_cli", *words],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        check=False,
    )


def test_as_a_process_on_a_console_without_glyphs():
    done = run("profile", "show", "--set", "report.title=東京 →", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert b"\\u6771\\u4eac ->" in done.stdout
    done = run("profile", "show", "--json", "--set", "report.title=東京", PYTHONIOENCODING="ascii")
    assert json.loads(done.stdout)["result"]["values"]["report"]["title"] == "東京"
    done = run("profile", "show", "-p", "nöpe.toml", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stdout == b""


@pytest.mark.parametrize("gone", ["stdout", "stderr"])
@pytest.mark.parametrize(
    ("words", "code"), [("--help", 0), ("profile show", 0), ("profile show --json", 0), ("no", 2)]
)
def test_a_reader_that_leaves_is_no_error(words, code, gone):
    reader, writer = os.pipe()
    os.close(reader)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, gone: writer}
    done = subprocess.run(
        [sys.executable, "-m", "ccrl_cli", *words.split()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        **streams,
    )
    os.close(writer)
    assert done.returncode == code
    assert b"Traceback" not in (done.stderr or b"")
    assert not (gone == "stdout" and code == 0 and done.stderr)


def test_shell_completion():
    done = run(_CCRL_COMPLETE="complete_bash", COMP_WORDS="ccrl profile sh", COMP_CWORD="2")
    assert done.stdout.split() == [b"show"]
