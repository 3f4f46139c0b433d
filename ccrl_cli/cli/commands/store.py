"""`ccrl store`: info, verify, merge, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, expanded, new_group
from ccrl_cli.cli.output import format_table

app = new_group("The store of completions: counts, integrity, merging of shards, export.")


class ExportFormat(StrEnum):
    """Formats that an export can have."""

    jsonl = "jsonl"
    parquet = "parquet"


Store = Annotated[
    Path | None,
    typer.Argument(help="Store file; default: the profile's.", show_default=False),
]
Repair = Annotated[bool, typer.Option("--repair", help="Move bad lines to a side file.")]
Sources = Annotated[
    list[Path] | None,
    typer.Argument(help="Files to merge; default: all shards of the store.", show_default=False),
]
Into = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Store to merge into; default: the profile's.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="File to write; default: beside the store.", show_default=False
    ),
]
FormatOption = Annotated[
    ExportFormat | None,
    typer.Option("--format", help="Default: by the ending of the output.", show_default=False),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Only records by this model; may repeat.", show_default=False),
]


@command(app, "info")
def info(invocation: Invocation, store: Store = None) -> None:
    """Count records by model, settings and K."""
    from ccrl_cli.pipelines.generation.store import info as run

    found = run(store or invocation.load().profile.store_path, reporter=invocation.reporter)
    rows = [
        (
            model.model,
            model.records,
            model.completions,
            ", ".join(map(str, model.num_completions)),
            ", ".join(item.digest for item in model.identities),
        )
        for model in found.models
    ]
    table = format_table(("model", "records", "completions", "K", "identity"), rows)
    text = f"{found.path}: {found.records} records of {found.inputs} inputs, {found.bytes} bytes"
    counts = {
        "records": found.records,
        "duplicates": found.duplicates,
        "replaced": found.replaced,
        "torn_bytes": found.torn_bytes,
    }
    invocation.finish(found, text=f"{text}\n{table}", counts=counts)


@command(app, "verify")
def verify(invocation: Invocation, store: Store = None, repair: Repair = False) -> None:
    """Check every line; exit 5 if one is bad, unless it is moved to a side file."""
    from ccrl_cli.pipelines.generation.store import verify as run

    path = store or invocation.load().profile.store_path
    found = run(path, repair=repair, reporter=invocation.reporter)
    text = f"{path}: {found.records} records in {found.lines} lines are sound"
    if found.side_file is not None:
        text = f"{path}: moved {len(found.bad)} of {found.lines} lines to {found.side_file}"
    counts = {
        "records": found.records,
        "moved": len(found.bad),
        "duplicates": found.duplicates,
        "torn_bytes": found.torn_bytes,
    }
    invocation.finish(found, text=text, counts=counts)


@command(app, "merge")
def merge(invocation: Invocation, sources: Sources = None, output: Into = None) -> None:
    """Merge shards into the store; in any order, and again, with the same result."""
    from ccrl_cli.pipelines.generation.store import merge as run

    path = output or invocation.load().profile.store_path
    report = run(expanded(sources or ()), path, reporter=invocation.reporter)
    counts = {
        "records": report.records,
        "duplicates": report.duplicates,
        "torn_bytes": report.torn_bytes,
    }
    text = f"{path}: {report.records} records from {len(report.sources)} files"
    invocation.finish(report, text=text, counts=counts)


@command(app, "export")
def export(
    invocation: Invocation,
    store: Store = None,
    output: Output = None,
    format: FormatOption = None,
    model: Models = None,
) -> None:
    """Write records with their labels as JSON Lines or Parquet, for `datasets` and others."""
    from ccrl_cli.pipelines.generation.store import export as run

    report = run(
        store or invocation.load().profile.store_path,
        output,
        format=format.value if format else None,
        models=model or (),
        reporter=invocation.reporter,
    )
    counts = {"records": report.records, "replaced_characters": report.replaced_characters}
    text = f"{report.path}: {report.records} records, {report.bytes} bytes"
    invocation.finish(report, text=text, counts=counts)
