"""`ccrl export`: a run's model to use elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting

app = new_app()

DTYPE = setting(
    "model.dtype",
    str,
    "Number format of a merged model: bfloat16, float16, float32, or auto (the base's).",
)

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Folder to write; default: export (or export-adapter) in the run directory.",
        show_default=False,
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option("--adapter", "-a", help="LoRA folder; default: the run's.", show_default=False),
]
AdapterOnly = Annotated[
    bool, typer.Option("--adapter-only", help="The adapter in PEFT format, not a merged model.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")]
Push = Annotated[
    str | None,
    typer.Option(
        "--push", metavar="ORG/NAME", help="Upload it to the hub too.", show_default=False
    ),
]
Private = Annotated[bool, typer.Option("--private", help="Make a new hub repository private.")]


@command(app, "export", DTYPE)
def export(
    invocation: Invocation,
    output: Output = None,
    adapter: Adapter = None,
    adapter_only: AdapterOnly = False,
    overwrite: Overwrite = False,
    push: Push = None,
    private: Private = False,
) -> None:
    """Write the adapted model for use elsewhere: merged, adapter alone, or on the hub.

    A card with its scores goes along. A merged folder loads with plain transformers, an adapter
    folder with plain peft.
    """
    from ccrl_cli.pipelines.export import ExportOptions
    from ccrl_cli.pipelines.export import export as run

    options = ExportOptions(output, adapter, adapter_only, overwrite, push or None, private)
    profile = invocation.load().profile
    result = run(profile, options, reporter=invocation.reporter)
    text = f"{result.path}: {result.kind}, {result.parameters} parameters, {result.bytes} bytes"
    if result.pushed:
        text += f"\npushed to {result.pushed}"
    counts = {"parameters": result.parameters, "bytes": result.bytes}
    invocation.finish(result, text=text, counts=counts, run_dir=profile.run_path)
