"""`ccrl run`: the whole pipeline of a profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.commands.evaluate import percent, score_table
from ccrl_cli.cli.options import Invocation, command, new_app, setting
from ccrl_cli.cli.output import duration, format_table
from ccrl_cli.cli.round_table import round_table
from ccrl_cli.findings import finding_lines

if TYPE_CHECKING:
    from ccrl_cli.pipelines.run import RunResult

app = new_app()

PACING = setting("curriculum.pacing", str, "linear, root, log, exponential, step or constant.")
STEPS = setting("training.max_steps", int, "Optimiser steps of the training.")
FromScratch = Annotated[
    bool,
    typer.Option(
        "--from-scratch",
        help="Start from the bare model: no adapter, warm up on the source domain first.",
    ),
]


@command(app, "run", PACING, STEPS)
def run(invocation: Invocation, from_scratch: FromScratch = False) -> None:
    """Warm up if asked, generate, order, train, evaluate; call again to go on after a stop."""
    from ccrl_cli.pipelines.run import run as run_pipeline

    changes = {"model__adapter": "", "warmup__enabled": True} if from_scratch else {}
    loaded = invocation.load(**changes)
    result = run_pipeline(loaded.profile, reporter=invocation.reporter, origins=loaded.origins)
    invocation.finish(
        result,
        text="\n".join(_lines(result)),
        counts={
            "inputs": result.curriculum.num_inputs,
            "completions": result.curriculum.num_completions,
            "invalid_completions": result.curriculum.num_invalid,
            "steps": result.training.steps,
        },
        run_dir=loaded.profile.run_path,
    )


def _lines(result: RunResult) -> Iterator[str]:
    """Yield what came of a run, and its tables; F1 and shares in percent."""
    view = result.curriculum
    yield from finding_lines(result.finding)
    yield ""
    yield f"Pseudo-labels by confidence ({view.metric}, labels by {view.label})"
    yield _bins(result)
    if view.oracle_finding:
        yield view.oracle_finding
    yield ""
    yield "Scores"
    yield score_table(result.evaluation)
    yield ""
    if result.rounds:
        yield "Rounds"
        yield round_table(result.rounds)
        yield ""
    rows = [
        [step.name, duration(step.seconds), "before this call" if step.skipped else "now"]
        for step in result.steps
    ]
    yield format_table(["step", "time", "done"], rows)
    yield ""
    yield format_table(["what", "where"], [list(item) for item in result.files.items()])


def _bins(result: RunResult) -> str:
    columns = ["confidence", "inputs", "entities", "label F1 %", "exact %"]
    rows: list[list[object]] = [
        [
            f"{part.low:.3f} to {part.high:.3f}",
            part.count,
            "-" if part.mean_entities is None else f"{part.mean_entities:.1f}",
            percent(part.oracle_f1),
            percent(part.oracle_exact),
        ]
        for part in reversed(result.curriculum.bins)
    ]
    view = result.curriculum
    rows.append(["all", view.num_inputs, "", percent(view.oracle_f1), percent(view.oracle_exact)])
    return format_table(columns, rows)
