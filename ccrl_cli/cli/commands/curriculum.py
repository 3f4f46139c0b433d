"""`ccrl curriculum`: show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_group, setting
from ccrl_cli.cli.output import format_table

if TYPE_CHECKING:
    from ccrl_cli.pipelines.curriculum import CurriculumView, StageView

app = new_group("The curriculum before training: confidence, label quality, stages.")

BAR_WIDTH = 40
MAX_STAGES = 12


class BinRule(StrEnum):
    """How bins of confidence are cut."""

    mass = "mass"
    fixed = "fixed"


PACING = setting(
    "curriculum.pacing", str, "linear, root, log, exponential, step or constant.", "--pacing"
)
METRIC = setting("confidence.metric", str, "Confidence that orders the inputs.")
LABEL = setting("confidence.label", str, "majority or entity_vote.")
EPOCHS = setting("training.epochs", float, "Update budget in passes over all inputs.")
STORE = setting("generation.store", str, "File of the completions.")
Bins = Annotated[BinRule, typer.Option("--bins", help="Bins of equal mass or of fixed width.")]
NumBins = Annotated[int, typer.Option("--num-bins", min=1, help="Bins of confidence.")]


@command(app, "show", PACING, METRIC, LABEL, EPOCHS, STORE)
def show(invocation: Invocation, bins: Bins = BinRule.mass, num_bins: NumBins = 10) -> None:
    """Show confidence, its bins, and what each stage of training will open."""
    from ccrl_cli.pipelines.curriculum import show_curriculum

    profile = invocation.load().profile
    if invocation.flags["training.epochs"] is not None and profile.training.max_steps is not None:
        invocation.reporter.warn(
            f"--epochs changes nothing: training.max_steps = {profile.training.max_steps} decides "
            "(`--set training.max_steps=` unsets it)"
        )
    view = show_curriculum(
        profile, bins=bins.value, num_bins=num_bins, reporter=invocation.reporter
    )
    counts = {
        "inputs": view.num_inputs,
        "missing": view.num_missing,
        "completions": view.num_completions,
        "invalid": view.num_invalid,
        "left_out": view.num_left_out,
    }
    invocation.finish(view, text="\n".join(_lines(view)), counts=counts)


def _lines(view: CurriculumView) -> Iterator[str]:
    """Yield the view as a reader sees it; F1 and shares in percent."""
    yield (
        f"{view.store}: {view.num_inputs} inputs, {view.num_missing} missing; "
        f"{view.num_invalid} of {view.num_completions} completions invalid"
    )
    yield f"models: {', '.join(view.models)}"
    yield ""
    yield f"Confidence ({view.metric}, labels by {view.label})"
    yield from _histogram(view.histogram)
    yield ""
    rule = "equal mass, ties together" if view.bin_rule == "mass" else "fixed width"
    yield f"Bins of confidence ({rule})"
    yield _bins(view)
    if view.oracle_f1 is not None and view.oracle_exact is not None:
        yield (
            f"oracle, {view.oracle_count} inputs with gold: F1 {view.oracle_f1:.1%}, "
            f"exact {view.oracle_exact:.1%}"
        )
        yield f"oracle: {view.oracle_finding}"
    yield ""
    kept = view.num_inputs - view.num_left_out
    yield (
        f"Stages: {view.pacing} pacing over {view.num_steps} steps ({view.steps_from}) of "
        f"{view.prompts_per_step} prompts, {kept} inputs in {view.order} order"
    )
    if view.threshold:
        yield f"threshold {view.threshold:g} leaves out {view.num_left_out} inputs"
    if view.stages:
        yield _stages(view)
        if len(view.stages) > MAX_STAGES:
            yield f"{MAX_STAGES} of {len(view.stages)} stages, evenly chosen; --json has all"
    if not view.reportable:
        yield "not reportable: mock completions, or not all inputs"


def _histogram(counts: Sequence[int]) -> Iterator[str]:
    """Yield one bar a bin; the longest has `BAR_WIDTH` blocks, none that holds inputs is empty."""
    width, most = len(str(max(counts))), max(counts)
    for number, count in enumerate(counts):
        low, high = number / len(counts), (number + 1) / len(counts)
        blocks = max(round(BAR_WIDTH * count / most), 1) if count else 0
        yield f"  {low:.1f} to {high:.1f}  {count:>{width}}  {'█' * blocks}".rstrip()


def _bins(view: CurriculumView) -> str:
    """Return the table of bins; with gold, its last columns are the labels' quality."""
    columns = ["confidence", "inputs", "mean", "entities", "empty %"]
    oracle = view.oracle_f1 is not None
    rows = []
    for part in view.bins:
        row: list[object] = [
            f"{part.low:.3f} to {part.high:.3f}",
            part.count,
            _rounded(part.mean_confidence, 3),
            _rounded(part.mean_entities, 2),
            _percent(part.empty_share),
        ]
        if oracle:
            row += [_percent(part.oracle_f1), _percent(part.oracle_exact)]
        rows.append(row)
    return format_table(columns + ["oracle F1 %", "oracle exact %"] * oracle, rows)


def _stages(view: CurriculumView) -> str:
    """Return the table of stages, at most `MAX_STAGES` of them."""
    columns = ["stage", "steps", "open", "open %", "lowest confidence", "passes"]
    oracle = view.oracle_f1 is not None
    rows = []
    for stage in evenly(view.stages, MAX_STAGES):
        row: list[object] = [
            stage.number,
            f"{stage.first_step}-{stage.last_step}",
            stage.num_open,
            _percent(stage.open_share),
            _rounded(stage.lowest_confidence, 3),
            _rounded(stage.passes, 2),
        ]
        if oracle:
            row += [_percent(stage.oracle_f1), _percent(stage.oracle_exact)]
        rows.append(row)
    return format_table(columns + ["oracle F1 %", "oracle exact %"] * oracle, rows)


def evenly(items: Sequence[StageView], limit: int) -> list[StageView]:
    """Return at most `limit` (2 or more) items: the first, the last, and evenly between."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
