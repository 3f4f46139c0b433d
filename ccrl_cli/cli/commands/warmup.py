"""`ccrl warmup`: supervised fine-tuning on the source domain."""

from __future__ import annotations

from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting

app = new_app()

METHOD = setting("warmup.method", str, "lora (an adapter) or full (every weight).")
EPOCHS = setting("warmup.epochs", float, "Passes over the labelled source data.")
STEPS = setting("warmup.max_steps", int, "Optimiser steps; epochs then no longer decides.")
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Start from the bare model, without its adapter.")
]


@command(app, "warmup", METHOD, EPOCHS, STEPS)
def warmup(invocation: Invocation, from_scratch: FromScratch = False) -> None:
    """Fine-tune the model on the labelled source domain: the start of small-model runs."""
    from ccrl_cli.pipelines.training.warmup import warmup as run

    changes = {"model__adapter": ""} if from_scratch else {}
    loaded = invocation.load(warmup__enabled=True, **changes)
    result = run(loaded.profile, reporter=invocation.reporter)
    invocation.finish(
        result,
        text=f"{result.steps} steps on {result.examples} sentences, loss {result.loss:.3f}, "
        f"{result.seconds:.0f} s: {result.path}",
        counts={"examples": result.examples, "too_long": result.too_long},
        run_dir=loaded.profile.run_path,
    )
