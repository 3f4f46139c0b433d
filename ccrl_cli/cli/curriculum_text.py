"""What a reader sees of the curriculum: tables and drawings; F1 and shares in percent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ccrl_cli.cli.drawing import bars, plot, spread
from ccrl_cli.cli.output import format_table

if TYPE_CHECKING:
    from ccrl_cli.pipelines.curriculum.pacing import PacingView
    from ccrl_cli.pipelines.curriculum.show import CurriculumView
    from ccrl_cli.pipelines.curriculum.stages import StageView
    from ccrl_cli.pipelines.labelling.calibrate import CalibrationView, Measures

MAX_STAGES = 12
MARKS = {
    "constant": "c",
    "log": "g",
    "root": "r",
    "linear": "l",
    "exponential": "e",
    "step": "s",
}
"""Pacing to the letter that draws it, from the first opened to the last."""

_ORACLE = ["oracle F1 %", "oracle exact %"]


def show_lines(view: CurriculumView) -> Iterator[str]:
    """Yield what ``curriculum show`` says."""
    yield (
        f"{view.store}: {view.num_inputs} inputs, {view.num_missing} missing; "
        f"{view.num_invalid} of {view.num_completions} completions invalid"
    )
    yield f"models: {', '.join(view.models)}"
    yield ""
    through = "" if view.calibrator == "none" else f", calibrated by {view.calibrator}"
    yield f"Confidence ({view.metric}, labels by {view.label}{through})"
    yield from bars(view.histogram)
    yield ""
    rule = "equal mass, ties together" if view.bin_rule == "mass" else "fixed width"
    yield f"Bins of confidence ({rule})"
    yield _bins(view)
    yield ""
    yield "Surest labels"
    yield _top(view)
    yield view.trust_finding
    if view.oracle_f1 is not None and view.oracle_exact is not None:
        yield (
            f"oracle, {view.oracle_count} inputs with gold: F1 {view.oracle_f1:.1%}, "
            f"exact {view.oracle_exact:.1%}"
        )
        yield f"oracle: {view.oracle_finding}"
    yield (
        f"{view.signal_share:.0%} of the inputs have completions that earn different rewards; "
        "the others have no gradient yet"
    )
    yield ""
    yield from _stage_lines(view)
    if not view.reportable:
        yield "not reportable: mock completions, or not all inputs"


def _stage_lines(view: CurriculumView) -> Iterator[str]:
    kept = view.num_inputs - view.num_left_out
    yield (
        f"Stages: {view.pacing} pacing over {view.num_steps} steps ({view.steps_from}) of "
        f"{view.prompts_per_step} prompts, {kept} inputs in {view.order} order"
        + (", types in balance" if view.balance == "types" else "")
    )
    if view.threshold:
        yield f"threshold {view.threshold:g} leaves out {view.num_left_out} inputs"
    if view.stages:
        yield _stages(view)
        if len(view.stages) > MAX_STAGES:
            yield f"{MAX_STAGES} of {len(view.stages)} stages, evenly chosen; --json has all"
    if view.mix_finding is not None:
        yield view.mix_finding


def _bins(view: CurriculumView) -> str:
    """Return the table of bins; with gold, its last columns are the labels' quality."""
    columns = ["confidence", "inputs", "mean", "entities", "empty %", "signal %"]
    oracle = view.oracle_f1 is not None
    rows = []
    for part in view.bins:
        row: list[object] = [
            f"{part.low:.3f} to {part.high:.3f}",
            part.count,
            _rounded(part.mean_confidence, 3),
            _rounded(part.mean_entities, 2),
            _percent(part.empty_share),
            _percent(part.signal_share),
        ]
        if oracle:
            row += [_percent(part.oracle_f1), _percent(part.oracle_exact)]
        rows.append(row)
    return format_table(columns + _ORACLE * oracle, rows)


def _top(view: CurriculumView) -> str:
    """Return the table of the surest shares of the labels."""
    mean = "mean" if view.calibrator == "none" else "expected right %"
    columns = ["surest %", "labels", "lowest confidence", mean]
    oracle = view.oracle_f1 is not None
    rows = []
    for part in view.top:
        row: list[object] = [
            round(100 * part.share),
            part.count,
            _rounded(part.lowest_confidence, 3),
            _rounded(part.mean_confidence, 3)
            if view.calibrator == "none"
            else _percent(part.mean_confidence),
        ]
        if oracle:
            row += [
                _percent(part.oracle_f1),
                _percent(part.oracle_precision),
                _percent(part.oracle_exact),
            ]
        rows.append(row)
    return format_table(columns + [_ORACLE[0], "oracle precision %", _ORACLE[1]] * oracle, rows)


def _stages(view: CurriculumView) -> str:
    """Return the table of stages, at most `MAX_STAGES` of them."""
    opened = "open" if view.unit == "sentence" else "open mentions"
    columns = ["stage", "steps", opened, "open %", "lowest confidence", "passes", "signal %"]
    columns.append("other mix %")
    oracle = view.oracle_f1 is not None
    whole = view.unit == "sentence"
    rows = []
    for stage in evenly(view.stages, MAX_STAGES):
        row: list[object] = [
            stage.number,
            f"{stage.first_step}-{stage.last_step}",
            stage.num_open,
            _percent(stage.open_share),
            _rounded(stage.lowest_confidence, 3),
            _rounded(stage.passes, 2),
            _percent(stage.signal_share),
            _percent(stage.skew),
        ]
        if oracle and whole:
            row += [_percent(stage.oracle_f1), _percent(stage.oracle_exact)]
        elif oracle:
            row.append(_percent(stage.oracle_precision))
        rows.append(row)
    return format_table(columns + (_ORACLE if whole else ["oracle precision %"]) * oracle, rows)


def plot_lines(view: PacingView, *, width: int = 61) -> Iterator[str]:
    """Yield what ``curriculum plot`` says."""
    over = f"{view.num_inputs} inputs" if view.num_inputs else "no store yet: 1000 inputs"
    yield (
        f"Open share by step: {view.num_steps} steps of {view.prompts_per_step} prompts over {over}"
    )
    shares = {curve.pacing: curve.shares for curve in view.curves}
    points = {
        mark: spread(shares[name], width) for name, mark in MARKS.items() if name != view.chosen
    }
    points[MARKS[view.chosen].upper()] = spread(shares[view.chosen], width)
    if view.run is not None:
        last = max(1, max(view.run.steps[-1], view.num_steps) - 1)
        points["*"] = [
            ((step - 1) / last, share)
            for step, share in zip(view.run.steps, view.run.shares, strict=True)
        ]
    yield from plot(points, width=width)
    yield f"        step 1{f'step {view.num_steps}':>{width - 6}}"
    legend = [
        f"{mark.upper() if name == view.chosen else mark} {name}" for name, mark in MARKS.items()
    ]
    yield "        " + ", ".join(legend + ["* opened by the run"] * (view.run is not None))
    yield ""
    rows = [
        [
            curve.pacing + (" (chosen)" if curve.pacing == view.chosen else ""),
            *(_percent(spread(curve.shares, 5)[part][1]) for part in range(5)),
            _percent(curve.mean_share),
            curve.first_full_step,
        ]
        for curve in view.curves
    ]
    columns = ["pacing", "start %", "at 1/4", "at 1/2", "at 3/4", "end", "mean %", "full at step"]
    yield format_table(columns, rows)
    if view.run is not None:
        yield ""
        yield from _run_lines(view)


def _run_lines(view: PacingView) -> Iterator[str]:
    run = view.run
    assert run is not None
    planned = {True: ", as planned", False: ", not as this profile plans", None: ""}
    yield f"{run.run}: {run.steps[-1]} steps recorded{planned[run.as_planned]}"
    if run.stages:
        rows = [
            [
                stage.stage,
                stage.steps,
                stage.num_open,
                _percent(stage.open_share),
                _rounded(stage.reward, 3),
                _rounded(stage.kl, 4),
                _percent(stage.zero_spread_share),
            ]
            for stage in run.stages
        ]
        columns = ["stage", "steps", "open", "open %", "reward", "kl", "no gradient %"]
        yield format_table(columns, rows)


def calibration_lines(view: CalibrationView) -> Iterator[str]:
    """Yield what ``curriculum calibrate`` says."""
    yield (
        f"{view.metric}, labels by {view.label}, against {view.against}: fitted on "
        f"{view.num_fitted} inputs of {view.inputs}, measured on {view.num_held_out} others "
        f"({view.held_out_right:.1%} of their labels equal gold)"
    )
    if view.combination is not None:
        parts = ", ".join(f"{name} {value:.3g}" for name, value in view.combination.items())
        yield f"combined by a logistic fit: {parts}"
    yield ""
    measured = {"before": view.before, **view.after}
    rows = [_measures(name, measures) for name, measures in measured.items()]
    columns = ["", f"ECE (B={view.num_bins})", "Brier", "AUROC", "95 %", "AURC"]
    yield format_table(columns, rows)
    yield ""
    yield "Risk (1 - mean target) of the surest share of the inputs"
    risks = [[name, *(_rounded(v, 3) for v in m.risk.values())] for name, m in measured.items()]
    yield format_table(["coverage", *view.before.risk], risks)
    for name, measures in (("before", view.before), (view.best, view.after[view.best])):
        yield ""
        yield f"Reliability, {name}: o bins of equal mass, . where confidence would be right"
        yield from plot(
            {
                ".": [(step / 30, step / 30) for step in range(31)],
                "o": [(part.mean_confidence, part.mean_target) for part in measures.bins],
            },
            width=31,
            height=11,
        )
        yield f"        0{'confidence':^29}1"
    yield ""
    yield f"{view.path}: use one with --set confidence.calibrator={view.best}"
    yield f"note: {view.note}"
    if not view.reportable:
        yield "not reportable: mock completions"


def _measures(name: str, measures: Measures) -> list[object]:
    auroc = measures.auroc
    interval = "" if auroc is None else f"{auroc.low:.3f} to {auroc.high:.3f}"
    return [
        name,
        _rounded(measures.ece, 4),
        _rounded(measures.brier, 4),
        None if auroc is None else _rounded(auroc.value, 3),
        interval,
        _rounded(measures.area, 4),
    ]


def evenly(items: Sequence[StageView], limit: int) -> list[StageView]:
    """Return at most `limit` (2 or more) items: the first, the last, and evenly between."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
