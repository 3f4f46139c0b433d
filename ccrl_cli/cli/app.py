"""The `ccrl` command: a table of commands imported when called, and the one error boundary."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from ccrl_cli import __version__
from ccrl_cli.cli.options import State, show_help
from ccrl_cli.cli.output import (
    Outcome,
    Status,
    document,
    format_values,
    paint,
    write_document,
    write_line,
)
from ccrl_cli.cli.signals import stopping_at_signals
from ccrl_cli.cli.streams import may_be_misread, prepare_streams, stdout_failure
from ccrl_cli.errors import (
    CcrlError,
    IntegrityError,
    InterruptedRunError,
    PartialError,
    PreconditionError,
    UsageError,
)

COMMANDS: dict[str, str] = {
    "run": "Warm up if asked, generate, order, train, evaluate; call again to go on after a stop.",
    "download": "Download models, and hub data sets of the profile; no GPU needed.",
    "generate": "Sample K completions of each target input, each on disk as soon as it is done.",
    "curriculum": "The curriculum before training: confidence, label quality, stages, pacings.",
    "warmup": "Fine-tune the model on the labelled source domain: the start of small-model runs.",
    "store": "The store of completions: counts, integrity, merging of shards, export.",
    "train": "Train with GRPO on pseudo-labels, the surest first.",
    "evaluate": "Score source and target by span F1, before and after; or any system's file.",
    "baselines": "Training recipes compared at equal update budgets, over seeds.",
    "predict": "Find entities in new texts: JSON Lines with character offsets and confidence on "
    "stdout.",
    "export": "Write the adapted model for use elsewhere: merged, adapter alone, or on the hub.",
    "report": "Write one self-contained HTML page of one run, or of several compared.",
    "doctor": "What this machine can run, and whether the profile fits its memory.",
    "profile": "Profiles: list, show with the origin of each value, check, start one.",
}
"""Name -> line in ``ccrl --help``; the command is `app` of the module of that name in commands."""

OPTIONAL_VALUES: dict[str, str] = {"--ray": "auto"}
"""Option -> its value where none follows; the parser knows no such options."""

_ERROR_STATUS: dict[int, Status] = {
    PartialError.exit_code: "partial",
    InterruptedRunError.exit_code: "interrupted",
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and help, and imports one when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the called command's entry by the real command, then go on as usual."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = load_command(args[0])
        return super().resolve_command(ctx, args)


def load_command(name: str) -> Any:
    """Import a command's module and return the command."""
    module = import_module(f"ccrl_cli.cli.commands.{name}")
    loaded = get_command(module.app)
    loaded.name = name
    return loaded


app = typer.Typer(
    cls=LazyGroup,
    help="Adapt a language model to a new domain without labels, by reinforcement learning on "
    "its own surest answers.",
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ccrl {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 (its callback acts)
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    show_help(ctx)


def _entry() -> None:
    """Stand for a command in the list of commands."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help)(_entry)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line; write its result or its error.

    Args:
        arguments: what follows ``ccrl``.

    Returns:
        0 done, 1 bug, 2 usage or profile, 3 missing precondition, 4 partial, 5 integrity,
        130 interrupted.
    """
    prepare_streams()
    # Where there are no symbolic links, models take no more room by our way of fetching them.
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    arguments = _with_values(arguments)
    flags = _before_separator(arguments)
    if "--no-color" in flags:
        os.environ["NO_COLOR"] = "1"
    as_json = "--json" in flags
    state = State(command=next((word for word in flags if word in COMMANDS), ""))
    try:
        try:
            with stopping_at_signals():
                code = app(list(arguments), prog_name="ccrl", obj=state, standalone_mode=False)
            if code == InterruptedRunError.exit_code:
                raise KeyboardInterrupt
            return _lost_result(code if code else _write_outcome(state, as_json), state)
        except Exception as error:
            return _write_error(error, state, as_json)
        except KeyboardInterrupt as error:
            return _write_error(error, state, as_json)
    except KeyboardInterrupt:
        return InterruptedRunError.exit_code


def _lost_result(code: int, state: State) -> int:
    """Return the exit code, or that of a result that stdout did not take, which is said."""
    failure = stdout_failure()
    if failure is None:
        return code
    lost = PreconditionError(
        f"the result could not be written: {failure.strerror}",
        hint="the work is done and stored: make room, then call the command again",
    )
    return _write_error(lost, state, as_json=False)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Return the words with the value of each option that was written without one."""
    words = list(arguments)
    count = len(_before_separator(words))
    given = []
    for number, word in enumerate(words):
        given.append(word)
        if number < count and word in OPTIONAL_VALUES:
            following = words[number + 1] if number + 1 < count else "-"
            if following.startswith("-"):
                given.append(OPTIONAL_VALUES[word])
    return given


def _before_separator(arguments: Sequence[str]) -> list[str]:
    words = list(arguments)
    return words[: words.index("--")] if "--" in words else words


def _is_follower() -> bool:
    """Return whether this is one of several processes, and not the first, which alone speaks."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0"


def _write_outcome(state: State, as_json: bool) -> int:
    outcome = state.outcome
    if _is_follower():
        return 0
    if as_json and state.reporter.mode.json:
        write_document(_document(state, outcome), sys.stdout)
    else:
        text = outcome.text if outcome.text is not None else format_values(outcome.result)
        if text:
            write_line(text, sys.stdout)
        if not text.isascii() and may_be_misread(sys.stdout):
            state.reporter.info(
                "the output is UTF-8; for PowerShell to read it as such, set "
                "[Console]::OutputEncoding = [Text.Encoding]::UTF8 first"
            )
    return PartialError.exit_code if outcome.status == "partial" else 0


def _document(
    state: State, outcome: Outcome, error: dict[str, str | None] | None = None
) -> dict[str, Any]:
    return document(state.command or "ccrl", outcome, state.reporter.warnings, error)


_NO_ROOM = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))


def _expected(error: BaseException) -> CcrlError | None:
    """Return the error as one of ours, or None for a bug."""
    if isinstance(error, CcrlError):
        return error
    if isinstance(error, typer.Abort) and isinstance(error.__context__, EOFError):
        return IntegrityError(  # the library of commands takes it for the end of typed input
            "a file that is read ended before its content did",
            hint="fetch or write it again; -v shows where it is read",
        )
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return PreconditionError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}",
            hint="make room, or write elsewhere (run.dir), then call it again",
        )
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return InterruptedRunError(
            "interrupted",
            hint="what is finished is safe: call it again (generate and train with --resume)",
        )
    if isinstance(error, OSError) and _is_pattern(error.filename):
        return UsageError(
            f"{error.filename} is no name of a file", hint="name one: * and ? stand for themselves"
        )
    if isinstance(error, typer.TyperException):
        path = getattr(getattr(error, "ctx", None), "command_path", "ccrl")
        return UsageError(error.format_message(), hint=f"see `{path} --help`")
    return None


def _is_pattern(name: object) -> bool:
    """Return whether a path has characters that names of Windows do not, and shells expand."""
    return isinstance(name, str) and any(sign in name for sign in "*?")


def _write_error(error: BaseException, state: State, as_json: bool) -> int:
    expected = _expected(error)
    message = expected.message if expected else f"{type(error).__name__}: {error}"
    hint = expected.hint if expected else "this is a bug in ccrl: report it with the traceback"
    code = expected.exit_code if expected else 1
    mode = state.reporter.mode
    if expected is None or mode.verbose:
        import traceback

        write_line("".join(traceback.format_exception(error)).rstrip(), sys.stderr)
    write_line(paint("error:", "1;31", sys.stderr, mode) + f" {message}", sys.stderr)
    if hint:
        write_line(paint("hint:", "36", sys.stderr, mode) + f" {hint}", sys.stderr)
    if as_json:
        outcome = Outcome(status=_ERROR_STATUS.get(code, "error"))
        details = {"kind": expected.kind if expected else "bug", "message": message, "hint": hint}
        write_document(_document(state, outcome, details), sys.stdout)
    return code
