"""`ccrl predict`: entities of new texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting
from ccrl_cli.cli.output import json_line
from ccrl_cli.errors import UsageError

if TYPE_CHECKING:
    from ccrl_cli.data.inputs import InputText

app = new_app()

BATCH = setting("evaluation.batch_size", int, "Texts decoded together.")
TOKENS = setting("evaluation.max_tokens", int, "Longest answer in tokens.")
DECODE = setting(
    "evaluation.decode",
    str,
    "greedy, typed (types by evidence) or vote (K answers, as labels are made).",
)
BACKEND = setting("evaluation.backend", str, "transformers, unsloth, vllm, openai or ollama.")
Texts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TEXT", help="Texts; none: --file, else standard input.", show_default=False
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        help="Lines of text (.txt), JSON Lines with text, or any data file; - is standard input.",
        show_default=False,
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        "-a",
        help="LoRA folder; default: the run's, else the starting model (none: always that).",
        show_default=False,
    ),
]
Types = Annotated[
    list[str] | None,
    typer.Option(
        "--types",
        help="Types to look for, as a,b,c; may repeat; default: the target's.",
        show_default=False,
    ),
]
Piece = Annotated[
    int, typer.Option("--piece", min=1, help="Longer texts are read in pieces of M characters.")
]


@command(app, "predict", DECODE, BACKEND, BATCH, TOKENS)
def predict(
    invocation: Invocation,
    texts: Texts = None,
    file: File = None,
    adapter: Adapter = None,
    types: Types = None,
    piece: Piece = 600,
) -> None:
    """Find entities in new texts: JSON Lines with character offsets and confidence on stdout.

    Mentions that the text does not hold stand apart under "hallucinated", those of types that were
    not asked for under "other_types"; an answer that cannot be read has the outcome "invalid".
    """
    from ccrl_cli.pipelines.evaluation.predict import PredictOptions
    from ccrl_cli.pipelines.evaluation.predict import predict as run

    inputs = _inputs(texts, file)
    options = PredictOptions(adapter, _listed(types), piece)
    result = run(invocation.load().profile, inputs, options, reporter=invocation.reporter)
    invocation.finish(
        result,
        text="\n".join(json_line(row, sys.stdout) for row in result.rows),
        counts=result.counts,
        status="done" if result.rows else "nothing",
    )


def _inputs(texts: list[str] | None, file: Path | None) -> list[InputText]:
    """Return the texts from the arguments, a file or standard input."""
    from ccrl_cli.data.inputs import InputText, parse_texts, read_texts

    if texts and file is not None:
        raise UsageError("texts and --file exclude each other", hint="give one of them")
    if texts:
        return [InputText(text) for text in texts]
    if file is not None and str(file) != "-":
        return read_texts(file)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "there is no text", hint='ccrl predict "A sentence.", --file FILE, or pipe lines in'
        )
    return parse_texts(sys.stdin.buffer.read(), "standard input")


def _listed(types: list[str] | None) -> tuple[str, ...]:
    if not types:
        return ()
    names = (name.strip() for given in types for name in given.split(","))
    listed = tuple(dict.fromkeys(name for name in names if name))
    if not listed:
        raise UsageError("--types names no type", hint="write --types person,place")
    return listed
