"""`ccrl curriculum`: show, plot, score, calibrate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_group, setting

app = new_group("The curriculum before training: confidence, label quality, stages, pacings.")


class BinRule(StrEnum):
    """How bins of confidence are cut."""

    mass = "mass"
    fixed = "fixed"


class Against(StrEnum):
    """What confidence should say."""

    exact = "exact"
    f1 = "f1"


PACING = setting(
    "curriculum.pacing", str, "linear, root, log, exponential, step or constant.", "--pacing"
)
METRIC = setting("confidence.metric", str, "Confidence that orders the inputs.")
LABEL = setting("confidence.label", str, "majority or entity_vote.")
CALIBRATOR = setting("confidence.calibrator", str, "none, temperature, platt or isotonic.")
QUESTION = setting("confidence.type_question", str, "answer or question.")
EPOCHS = setting("training.epochs", float, "Update budget in passes over all inputs.")
STORE = setting("generation.store", str, "File of the completions.")
BATCH = setting("generation.batch_size", int, "Inputs in flight.")
Bins = Annotated[BinRule, typer.Option("--bins", help="Bins of equal mass or of fixed width.")]
NumBins = Annotated[int, typer.Option("--num-bins", min=1, help="Bins of confidence.")]
Trust = Annotated[
    float,
    typer.Option(
        "--trust",
        min=0.0,
        max=1.0,
        help="F1 (without gold: confidence) from which labels are worth trusting.",
    ),
]
RoundNumber = Annotated[
    int | None,
    typer.Option(
        "--round", min=1, help="Show a round of the run, its own labels.", show_default=False
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write a picture too: .png, .svg or .pdf.", dir_okay=False),
]
LabelledSplit = Annotated[
    str, typer.Option("--split", help="Labelled inputs: dev, test, or source:dev.")
]
AnySplit = Annotated[
    str, typer.Option("--split", help="train, dev or test; source:dev is the source's.")
]
AgainstOption = Annotated[
    Against, typer.Option("--against", help="Fit the chance of an exact label, or expected F1.")
]


@command(app, "show", PACING, METRIC, LABEL, CALIBRATOR, EPOCHS, STORE)
def show(
    invocation: Invocation,
    bins: Bins = BinRule.mass,
    num_bins: NumBins = 10,
    trust: Trust = 0.5,
    round_number: RoundNumber = None,
) -> None:
    """Show confidence, how far it can be trusted, and what each stage of training will open."""
    from ccrl_cli.cli.curriculum_text import show_lines
    from ccrl_cli.pipelines.curriculum.show import show_curriculum

    profile = invocation.load().profile
    if round_number is not None:
        from ccrl_cli.pipelines.training.round_files import round_of

        profile = round_of(profile, round_number)
    if invocation.flags["training.epochs"] is not None and profile.training.max_steps is not None:
        invocation.reporter.warn(
            f"--epochs changes nothing: training.max_steps = {profile.training.max_steps} decides "
            "(`--set training.max_steps=` unsets it)"
        )
    view = show_curriculum(
        profile, bins=bins.value, num_bins=num_bins, trust=trust, reporter=invocation.reporter
    )
    counts = {
        "inputs": view.num_inputs,
        "missing": view.num_missing,
        "completions": view.num_completions,
        "invalid": view.num_invalid,
        "left_out": view.num_left_out,
    }
    invocation.finish(view, text="\n".join(show_lines(view)), counts=counts)


@command(app, "plot", PACING, METRIC, EPOCHS, STORE)
def plot(invocation: Invocation, output: Picture = None) -> None:
    """Compare all pacings over the steps of this run, and show what its training opened."""
    from ccrl_cli.cli.curriculum_text import plot_lines
    from ccrl_cli.pipelines.curriculum.pacing import compare_pacings, draw_pacings

    if output is not None:
        from ccrl_cli.report.learning_figures import check_figure_path

        check_figure_path(output)
    view = compare_pacings(invocation.load().profile, reporter=invocation.reporter)
    if output is not None:
        draw_pacings(view, output)
        invocation.reporter.info(f"wrote {output}")
    counts = {"inputs": view.num_inputs, "steps": view.num_steps}
    run_dir = view.run.run if view.run else None
    text = "\n".join(plot_lines(view))
    invocation.finish(view, text=text, counts=counts, run_dir=run_dir)


@command(app, "score", QUESTION, STORE, BATCH)
def score(invocation: Invocation, split: AnySplit = "train") -> None:
    """Ask the model for the type of each span of its completions: the evidence of type_posterior.

    The scores lie beside the store; what is there already is not scored again.
    """
    from ccrl_cli.pipelines.common.domains import parse_split
    from ccrl_cli.pipelines.generation.type_scores import score_types

    inputs = parse_split(split)
    result = score_types(invocation.load().profile, inputs, reporter=invocation.reporter)
    text = (
        f"{result.scored} inputs scored, {result.already_scored} before: {result.spans} spans "
        f"under {result.types} types ({result.seconds:.0f} s)\n{result.path}"
    )
    counts = {"scored": result.scored, "already": result.already_scored, "spans": result.spans}
    invocation.finish(
        result, text=text, counts=counts, status="done" if result.scored else "nothing"
    )


@command(app, "calibrate", METRIC, LABEL, STORE)
def calibrate(
    invocation: Invocation,
    split: LabelledSplit = "dev",
    against: AgainstOption = Against.exact,
    num_bins: NumBins = 10,
    output: Picture = None,
) -> None:
    """Fit confidence to correctness on half of a labelled split, and measure on the other half."""
    from ccrl_cli.cli.curriculum_text import calibration_lines
    from ccrl_cli.pipelines.common.domains import parse_split
    from ccrl_cli.pipelines.labelling.calibrate import calibrate as fit
    from ccrl_cli.pipelines.labelling.calibrate import draw_reliability

    if output is not None:
        from ccrl_cli.report.learning_figures import check_figure_path

        check_figure_path(output)
    view = fit(
        invocation.load().profile,
        parse_split(split),
        against=against.value,
        num_bins=num_bins,
        reporter=invocation.reporter,
    )
    if output is not None:
        draw_reliability(view, output)
        invocation.reporter.info(f"wrote {output}")
    counts = {"fitted": view.num_fitted, "held_out": view.num_held_out}
    invocation.finish(view, text="\n".join(calibration_lines(view)), counts=counts)
