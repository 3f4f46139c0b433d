"""What every command shares: its options, the profile they load, the result it hands over."""

from __future__ import annotations

import glob
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccrl_cli.cli.output import ConsoleReporter, Mode, Outcome, Status
from ccrl_cli.errors import PreconditionError

if TYPE_CHECKING:
    from ccrl_cli.config.load import LoadedProfile


@dataclass(frozen=True, slots=True)
class Setting:
    """A flag that sets one key of the profile.

    Attributes:
        key: dotted key, such as ``training.epochs``.
        kind: type of the flag: ``str``, ``int``, ``float``, ``bool`` or ``list[str]`` (may repeat).
        help: what it does.
        flags: how it is written, such as ``--epochs``; a switch is ``--gate/--no-gate``.
    """

    key: str
    kind: Any
    help: str
    flags: tuple[str, ...]

    @property
    def parameter(self) -> inspect.Parameter:
        """The flag as a parameter of a command function."""
        option = typer.Option(*self.flags, help=f"{self.help} [{self.key}]", show_default=False)
        return _keyword(self.key.replace(".", "__"), Annotated[self.kind | None, option], None)


def setting(key: str, kind: Any, help: str, *flags: str) -> Setting:
    """Return a flag for a profile key; without `flags` it is called as the key's last part."""
    return Setting(key, kind, help, flags or ("--" + key.rpartition(".")[2].replace("_", "-"),))


@dataclass(slots=True)
class State:
    """What the error boundary knows of a running command."""

    command: str = ""
    reporter: ConsoleReporter = field(default_factory=lambda: ConsoleReporter(Mode()))
    outcome: Outcome = field(default_factory=Outcome)


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a command: its profile, its reporter, the place for its result."""

    state: State
    profile_name: str | None
    overrides: Sequence[str]
    flags: Mapping[str, Any]
    flag_names: Mapping[str, str]

    @property
    def reporter(self) -> ConsoleReporter:
        """Where messages, warnings and progress go."""
        return self.state.reporter

    def load(self, **flags: Any) -> LoadedProfile:
        """Load the profile with ``--set`` and all `Setting` flags of the command applied.

        Args:
            flags: further values by key, ``__`` for the dot, such as ``training__epochs=1``.

        Raises:
            ProfileError: see `load_profile`.
        """
        from ccrl_cli.config.load import load_profile

        given = {key.replace("__", "."): value for key, value in flags.items()}
        return load_profile(
            self.profile_name, self.overrides, {**self.flags, **given}, self.flag_names
        )

    def finish(
        self,
        result: Any,
        *,
        text: str | None = None,
        counts: Mapping[str, Any] | None = None,
        status: Status = "done",
        run_dir: Path | str | None = None,
    ) -> None:
        """Hand over the result; it is written when the command has returned.

        Args:
            result: dataclass, model or mapping; the JSON document's ``result``.
            text: the result for a reader; None writes the entries of `result` line by line.
            counts: what was done, skipped, repaired, left over.
            status: ``nothing`` when nothing was owed; ``partial`` ends the command with exit 4.
            run_dir: the run directory that was written.
        """
        self.state.outcome = Outcome(
            status=status,
            result=result,
            counts=counts or {},
            run_dir=None if run_dir is None else str(run_dir),
            text=text,
        )


CommandFunction = Callable[..., None]

_OUTPUT = "Output"
_PROFILE = "Profile"


def new_app() -> typer.Typer:
    """Return the Typer application of a command module that holds one command."""
    return typer.Typer(add_completion=False)


def new_group(help: str) -> typer.Typer:
    """Return the Typer application of a command module that holds several commands."""
    return typer.Typer(
        add_completion=False, help=help, invoke_without_command=True, callback=show_help
    )


def show_help(ctx: typer.Context) -> None:
    """Show the help of a group that is called without a command."""
    if ctx.invoked_subcommand is None and (text := ctx.get_help()):
        typer.echo(text)


def command(
    app: typer.Typer, name: str, *settings: Setting, profile: bool = True, hidden: bool = False
) -> Callable[[CommandFunction], CommandFunction]:
    """Register a command with the options that every command has.

    The function receives an `Invocation` first, then its own options and arguments. The flags of
    `settings` are not passed: `Invocation.load` applies them to the profile.

    Args:
        app: the module's application.
        name: how the command is called.
        settings: flags that set a profile key.
        profile: whether the command reads a profile (``--profile``, ``--set``).
        hidden: whether help leaves the command out.
    """

    def register(function: CommandFunction) -> CommandFunction:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        parameters = [
            _keyword("ctx", typer.Context),
            *(_keyword(p.name, p.annotation, p.default) for p in own),
            *(item.parameter for item in settings),
            *(_PROFILE_PARAMETERS if profile else ()),
            *_OUTPUT_PARAMETERS,
        ]

        def call(**values: Any) -> None:
            invocation = _invocation(values, settings)
            try:
                function(invocation, **{p.name: values[p.name] for p in own})
            except BrokenPipeError as error:
                # Commands do not write to stdout, so this is no reader that left.
                raise PreconditionError(
                    f"the other side closed a connection: {error}",
                    hint="check the address and the network, then call the command again",
                ) from error

        call.__name__ = function.__name__
        call.__doc__ = function.__doc__
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.settings = settings  # type: ignore[attr-defined]
        app.command(name, hidden=hidden)(call)
        return function

    return register


def expanded(paths: Iterable[Path]) -> list[Path]:
    """Return paths with `*` and `?` expanded where a file fits: no shell of Windows does it.

    Brackets stand for themselves, and so does a pattern that nothing fits.
    """
    found: list[Path] = []
    for path in paths:
        name = str(path)
        is_pattern = "*" in name or "?" in name
        fitting = glob.glob(name.replace("[", "[[]")) if is_pattern else []  # noqa: PTH207 (any root)
        found.extend(Path(each) for each in sorted(fitting) or [name])
    return found


def _invocation(values: Mapping[str, Any], settings: Sequence[Setting]) -> Invocation:
    """Set up reporter and state of a call from its parsed options."""
    ctx: typer.Context = values["ctx"]
    state: State = ctx.ensure_object(State)
    state.command = ctx.command_path.partition(" ")[2]
    mode = Mode(
        json=values["json_"],
        quiet=values["quiet"],
        verbose=values["verbose"],
        color=not values["no_color"],
    )
    state.reporter = ConsoleReporter(mode)
    _configure_logging(mode)
    return Invocation(
        state=state,
        profile_name=values.get("profile"),
        overrides=values.get("set_") or (),
        flags={item.key: values[item.parameter.name] for item in settings},
        flag_names={item.key: item.flags[0].partition("/")[0] for item in settings},
    )


def _configure_logging(mode: Mode) -> None:
    """Send what libraries log to stderr: errors, warnings, with -v information, -vv all."""
    import logging

    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    level = logging.ERROR if mode.quiet else levels[min(mode.verbose, 2)]
    logging.basicConfig(level=level, format="%(name)s: %(message)s", force=True)


def _keyword(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


_PROFILE_PARAMETERS = (
    _keyword(
        "profile",
        Annotated[
            str | None,
            typer.Option(
                "--profile",
                "-p",
                help="Profile file or name; default ./ccrl.toml, else quickstart.",
                show_default=False,
                rich_help_panel=_PROFILE,
            ),
        ],
        None,
    ),
    _keyword(
        "set_",
        Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="SECTION.KEY=VALUE",
                help="Override one value of the profile; may repeat.",
                show_default=False,
                rich_help_panel=_PROFILE,
            ),
        ],
        None,
    ),
)
_OUTPUT_PARAMETERS = (
    _keyword(
        "json_",
        Annotated[
            bool,
            typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_OUTPUT),
        ],
        False,
    ),
    _keyword(
        "quiet",
        Annotated[
            bool,
            typer.Option(
                "--quiet", "-q", help="Warnings and errors alone.", rich_help_panel=_OUTPUT
            ),
        ],
        False,
    ),
    _keyword(
        "verbose",
        Annotated[
            int,
            typer.Option(
                "--verbose",
                "-v",
                count=True,
                help="Details; -vv those of libraries too.",
                show_default=False,
                rich_help_panel=_OUTPUT,
            ),
        ],
        0,
    ),
    _keyword(
        "no_color",
        Annotated[
            bool,
            typer.Option(
                "--no-color", help="No colours (NO_COLOR works too).", rich_help_panel=_OUTPUT
            ),
        ],
        False,
    ),
)
