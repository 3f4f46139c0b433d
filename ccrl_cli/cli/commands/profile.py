"""`ccrl profile`: list, show, validate, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ccrl_cli.cli.options import Invocation, command, new_group
from ccrl_cli.cli.output import format_table
from ccrl_cli.errors import PreconditionError, UsageError

app = new_group("Profiles: list, show with the origin of each value, check, start one.")

Toml = Annotated[bool, typer.Option("--toml", help="Print a profile file instead of a table.")]
Source = Annotated[str, typer.Argument(help="Shipped profile to start from.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")]


@command(app, "list", profile=False)
def list_(invocation: Invocation) -> None:
    """List the profiles that come with ccrl."""
    from ccrl_cli.config.load import describe_profile, shipped_profiles

    profiles = [
        {"name": name, "description": describe_profile(path), "path": str(path)}
        for name, path in shipped_profiles().items()
    ]
    rows = [(item["name"], item["description"]) for item in profiles]
    invocation.finish({"profiles": profiles}, text=format_table(("name", "description"), rows))


@command(app, "show")
def show(invocation: Invocation, toml: Toml = False) -> None:
    """Show every value of a profile and where it comes from."""
    from ccrl_cli.config.dump import to_toml

    loaded = invocation.load()
    values = loaded.profile.model_dump(mode="json")
    rows = [(key, _shown(_value_of(values, key)), origin) for key, origin in loaded.origins.items()]
    result = {
        "path": str(loaded.path),
        "digest": loaded.digest,
        "values": values,
        "origins": loaded.origins,
    }
    text = (
        to_toml(loaded.profile).rstrip() if toml else format_table(("key", "value", "from"), rows)
    )
    invocation.finish(result, text=text)


@command(app, "validate")
def validate(invocation: Invocation) -> None:
    """Check a profile; exit 2 names the first key that is wrong, and the place."""
    loaded = invocation.load()
    invocation.finish(
        {"path": str(loaded.path), "digest": loaded.digest, "valid": True},
        text=f"{loaded.path} is valid (digest {loaded.digest})",
    )


@command(app, "init", profile=False)
def init(
    invocation: Invocation,
    source: Source = "quickstart",
    output: Output = Path("ccrl.toml"),
    force: Force = False,
) -> None:
    """Write a profile file to start from; ./ccrl.toml is read by every command."""
    from ccrl_cli.config.load import find_profile

    path, _ = find_profile(source)
    if output.exists() and not force:
        raise UsageError(f"{output} exists", hint="give --force to replace it, or --output FILE")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(path.read_bytes())
    except OSError as error:
        raise PreconditionError(
            f"{output} cannot be written: {error.strerror}", hint="choose another --output FILE"
        ) from error
    invocation.finish(
        {"path": str(output), "source": source},
        text=f"wrote {output} (from {source}); see it with `ccrl profile show -p {output}`",
    )


def _value_of(values: dict[str, Any], key: str) -> Any:
    """Return the value of a dotted key; type identifiers may hold dots themselves."""
    section, _, rest = key.partition(".")
    inner = values[section]
    return inner[rest] if rest in inner else _value_of(inner, rest)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
