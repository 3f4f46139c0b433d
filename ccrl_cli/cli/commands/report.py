"""`ccrl report`: one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, expanded, new_app
from ccrl_cli.findings import finding_lines

app = new_app()

Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN",
        help="Run directories; none: the profile's. The curriculum's is shown in full.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write; default: report.html in the run, or beside several.",
        show_default=False,
    ),
]
Title = Annotated[
    str | None, typer.Option("--title", help="Heading of the page.", show_default=False)
]


@command(app, "report")
def report(
    invocation: Invocation, runs: Runs = None, output: Output = None, title: Title = None
) -> None:
    """Write one self-contained HTML page of one run, or of several compared.

    It asks the network for nothing, is light or dark as the reader's system is, and begins with
    the answer in one sentence.
    """
    from ccrl_cli.pipelines.report import report as run

    folders = expanded(runs or ())
    if not folders:
        profile = invocation.load().profile
        folders, title = [profile.run_path], title or profile.report.title
    result = run(folders, output=output, title=title, reporter=invocation.reporter)
    lines = [*finding_lines(result.finding)]
    lines.append(f"{result.path} ({result.bytes // 1024} KiB, {len(result.figures)} figures)")
    invocation.finish(
        result,
        text="\n".join(lines),
        counts={"runs": len(result.runs), "figures": len(result.figures), "bytes": result.bytes},
        run_dir=folders[0] if len(folders) == 1 else None,
    )
