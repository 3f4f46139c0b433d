"""`ccrl train`: GRPO over the curriculum."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting

app = new_app()

PACING = setting("curriculum.pacing", str, "linear, root, log, exponential, step or constant.")
ORDER = setting("curriculum.order", str, "confidence, random or anti.")
BACKEND = setting("training.backend", str, "auto, trl or unsloth.")
EPOCHS = setting(
    "training.epochs", float, "Passes over all target inputs; the profile's max_steps is left out."
)
STEPS = setting("training.max_steps", int, "Optimiser steps; epochs then no longer decides.")
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the training that this run has.")
]


Arm = Annotated[
    str | None,
    typer.Option(
        "--arm",
        help="Train this recipe of `ccrl baselines list` in the run's own directory.",
        show_default=False,
    ),
]


@command(app, "train", PACING, ORDER, EPOCHS, STEPS, BACKEND)
def train(
    invocation: Invocation, resume: Resume = False, overwrite: Overwrite = False, arm: Arm = None
) -> None:
    """Train with GRPO on pseudo-labels, the surest first.

    On several GPUs: torchrun --nproc-per-node N -m ccrl_cli train
    """
    from ccrl_cli.cli.output import format_table
    from ccrl_cli.cli.round_table import round_table
    from ccrl_cli.pipelines.training.rounds import train_in_rounds
    from ccrl_cli.pipelines.training.train import TrainOptions

    flags = invocation.flags
    if flags[EPOCHS.key] is not None and flags[STEPS.key] is None:
        # Who asks for passes on the command line does not mean the profile's number of steps.
        invocation = replace(invocation, overrides=(f"{STEPS.key}=", *invocation.overrides))
    loaded = invocation.load()
    profile, variant = loaded.profile, None
    if arm is not None:
        from ccrl_cli.pipelines.comparison.arms import find_recipe
        from ccrl_cli.pipelines.comparison.baselines import variant_of

        recipe = find_recipe(arm)
        variant = variant_of(recipe)
        profile = profile.with_values(recipe.changes(profile))
    options = TrainOptions(resume, overwrite, loaded.origins, variant)
    result = train_in_rounds(profile, options, reporter=invocation.reporter)
    if result is None:  # one of several processes, and not the first
        return
    columns = ["stage", "steps", "open", "reward", "overlap", "kl", "no spread"]
    rows = [
        [
            str(stage["stage"]),
            str(stage["steps"]),
            str(stage["num_open"]),
            *(
                f"{stage[name]:.4f}" if name in stage else "-"
                for name in ("reward", "reward_overlap", "kl", "zero_spread_share")
            ),
        ]
        for stage in result.stages
    ]
    kept = "" if result.kept_step in (None, result.steps) else f" (step {result.kept_step})"
    text = format_table(columns, rows)
    if result.rounds:
        text += "\n" + round_table(result.rounds)
    text += f"\n{result.steps} steps: {result.adapter}{kept}"
    invocation.finish(
        result, text=text, counts=dict(result.counts), run_dir=loaded.profile.run_path
    )
