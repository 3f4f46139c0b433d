"""The figures of scores, training and arms: plain values in, inline SVG out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ccrl_cli.report.drawing import (
    BLUE,
    FACE,
    GREEN,
    GRID,
    INK,
    LINES,
    MARKERS,
    ORANGE,
    SERIES,
    SOFT,
    Figure,
    canvas,
    finish,
    short,
)

#: A smoothed line over steps averages this share of them.
SMOOTHING_SHARE = 0.15

#: More runs than this are drawn as points without intervals, with the mean of each arm.
MOST_INTERVALS = 8

#: Inches that one row of a legend adds to a figure.
LEGEND_ROW = 0.2


@dataclass(frozen=True, slots=True)
class Line:
    """A series over training steps; `values` may hold None where nothing was measured."""

    label: str
    steps: Sequence[int]
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """What a figure over steps shows: the key of the records, its words, its scale."""

    key: str
    title: str
    axis: str
    caption: str
    scale: float = 1.0
    limits: tuple[float, float] | None = None


PANELS = (
    Panel("reward", "Reward", "mean reward", "Mean reward of the answers drawn at each step."),
    Panel(
        "reward_overlap",
        "Agreement with the pseudo-label",
        "overlap (0 to 1)",
        "Overlap of the answers with the model's own labels: agreement, not correctness.",
        limits=(-0.03, 1.03),
    ),
    Panel(
        "kl",
        "KL to the starting policy",
        "nats a token",
        "How far the policy moved from its start, on a fixed batch of prompts (k3 estimate).",
    ),
    Panel(
        "open_share",
        "Open share of the curriculum",
        "inputs that may be drawn (%)",
        "Share of the inputs that the curriculum had opened.",
        scale=100.0,
        limits=(0, 104),
    ),
)


def score_figure(rows: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> Figure:
    """Return F1 before and after training with intervals, one row a domain.

    Args:
        rows: (name, scores before, scores after).
    """
    with canvas(4.8, 1.1 + 0.7 * len(rows)) as (drawing, axes):
        for place, (_, before, after) in enumerate(rows):
            for scores, offset, color, fill, word in (
                (before, 0.14, SOFT, FACE, "before training"),
                (after, -0.14, BLUE, BLUE, "after training"),
            ):
                height, value = len(rows) - place + offset, 100 * scores["f1"]
                low, high = 100 * scores["f1_low"], 100 * scores["f1_high"]
                axes.plot([low, high], [height, height], color=color, linewidth=2.4)
                axes.plot(
                    [value],
                    [height],
                    linestyle="none",
                    marker="o",
                    color=color,
                    markerfacecolor=fill,
                    markeredgewidth=1.8,
                    markersize=8,
                    label=word if place == 0 else None,
                )
        axes.set_yticks([len(rows) - i for i in range(len(rows))], [name for name, _, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(0.5, len(rows) + 0.5)
        axes.set_xlabel("micro F1 (%), with 95 % intervals over sentences")
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper left", ncols=2)
        return finish(
            drawing,
            "scores",
            "F1 before and after",
            "Each interval is of one score alone; whether training moved it is in the change.",
        )


def change_figure(rows: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    """Return the change of F1 with its paired interval, one row a domain.

    Args:
        rows: (name, change with ``value``, ``low`` and ``high`` as fractions).
    """
    with canvas(4.8, 1.1 + 0.7 * len(rows)) as (drawing, axes):
        axes.axvline(0, color=SOFT, linewidth=1.2)
        for place, (_, change) in enumerate(rows):
            sure = change["low"] > 0 or change["high"] < 0
            color = SOFT if not sure else GREEN if change["low"] > 0 else ORANGE
            height = len(rows) - place
            axes.plot([100 * change["low"], 100 * change["high"]], [height, height], color=color,
                      linewidth=2.4)  # fmt: skip
            axes.plot([100 * change["value"]], [height], color=color, markersize=9,
                      marker="o" if not sure else "^" if change["low"] > 0 else "v")  # fmt: skip
        axes.set_yticks([len(rows) - i for i in range(len(rows))], [name for name, _ in rows])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(0.5, len(rows) + 0.5)
        axes.margins(x=0.1)
        axes.set_xlabel("change of micro F1 (points), 95 % paired interval")
        axes.grid(axis="y", visible=False)
        return finish(
            drawing,
            "change",
            "Change of F1",
            "Both sides on the same resampled sentences. Triangles: the interval leaves out 0 "
            "(up: gained, down: lost); a grey dot is no clear change.",
        )


def step_figure(
    panel: Panel, lines: Sequence[Line], stage_ends: Sequence[int], *, name: str
) -> Figure | None:
    """Return a series over training steps, one line a run or arm; None if nothing was measured.

    Args:
        panel: what is drawn.
        lines: the series; a single one shows its raw values too.
        stage_ends: last step of each stage, drawn as bands.
        name: unique on the page.
    """
    drawn = [line for line in lines if any(value is not None for value in line.values)]
    if not drawn:
        return None
    rows = math.ceil(len(drawn) / 3) if len(drawn) > 1 else 0
    with canvas(4.8, 2.7 + LEGEND_ROW * rows) as (drawing, axes):
        for left, right in list(zip([0, *stage_ends], stage_ends, strict=False))[1::2]:
            axes.axvspan(left + 0.5, right + 0.5, color=GRID, alpha=0.45, linewidth=0)
        for place, line in enumerate(drawn):
            steps, values = _measured(line, panel.scale)
            color = SERIES[place % len(SERIES)]
            style = LINES[place // len(SERIES) % len(LINES)]
            options: dict[str, Any] = {
                "color": color,
                "linestyle": style,
                "label": short(line.label),
            }
            if panel.key == "open_share":
                axes.plot(steps, values, drawstyle="steps-mid", **options)
                continue
            smooth = moving_mean(values, max(1, round(SMOOTHING_SHARE * len(values))))
            axes.plot(steps, smooth, **options)
            if len(drawn) == 1:
                axes.plot(steps, values, linestyle="none", marker="o", markersize=3.4, color=color,
                          alpha=0.45)  # fmt: skip
        _set_steps(axes, drawn)
        axes.set_xlabel("training step")
        axes.set_ylabel(panel.axis)
        if panel.limits:
            axes.set_ylim(*panel.limits)
        elif panel.key == "kl":
            axes.set_ylim(bottom=0)
        if len(drawn) > 1:
            drawing.legend(loc="outside upper left", ncols=3, columnspacing=1.0)
        bands = " Grey bands: every second stage." if len(stage_ends) > 1 else ""
        return finish(drawing, name, panel.title, panel.caption + bands)


def _measured(line: Line, scale: float) -> tuple[list[int], list[float]]:
    pairs = [(s, scale * v) for s, v in zip(line.steps, line.values, strict=True) if v is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def _set_steps(axes: Any, lines: Sequence[Line]) -> None:
    """Number steps by whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    last = max(max(line.steps) for line in lines)
    axes.set_xlim(0.5, max(1.5, last + 0.5))


def moving_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the centred mean over a window of about `window` values, shorter at the ends."""
    half = window // 2
    return [
        float(np.mean(values[max(0, place - half) : place + half + 1]))
        for place in range(len(values))
    ]


@dataclass(frozen=True, slots=True)
class ScatterPoint:
    """One run: change of target and source F1 (fractions) with their intervals."""

    arm: str
    target: tuple[float, float, float]
    source: tuple[float, float, float]


def scatter_figure(points: Sequence[ScatterPoint]) -> Figure | None:
    """Return adaptation against forgetting, one point a run; None without points."""
    if not points:
        return None
    arms = list(dict.fromkeys(point.arm for point in points))
    many = len(points) > MOST_INTERVALS
    with canvas(4.8, 3.8 + LEGEND_ROW * (len(arms) // 3)) as (drawing, axes):
        axes.axhline(0, color=SOFT, linewidth=1.1)
        axes.axvline(0, color=SOFT, linewidth=1.1)
        for place, arm in enumerate(arms):
            mine = [point for point in points if point.arm == arm]
            color, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            x, y = ([100 * v for v in values] for values in _centres(mine))
            style: dict[str, Any] = {"color": color, "marker": marker, "edgecolors": FACE}
            if many:
                axes.scatter(x, y, s=24, alpha=0.5, **style)
                x, y = [float(np.mean(x))], [float(np.mean(y))]
            for point in () if many else mine:
                _cross(axes, point, color)
            axes.scatter(x, y, s=84, label=short(arm), zorder=3, **style)
        axes.text(0.99, 0.985, "adapts and keeps", transform=axes.transAxes, ha="right", va="top",
                  color=GREEN, fontsize=10,
                  bbox={"facecolor": FACE, "edgecolor": "none", "pad": 1})  # fmt: skip
        axes.text(0.01, 0.015, "loses both", transform=axes.transAxes, color=SOFT, fontsize=10)
        axes.margins(0.12)
        axes.set_xlabel("change of source F1 (points); left of 0: forgetting")
        axes.set_ylabel("change of target F1 (points)")
        drawing.legend(loc="outside upper left", ncols=3, columnspacing=1.0, handletextpad=0.2)
        words = (
            "Large points are means over seeds, small ones single runs."
            if many
            else "One point a run, lines are 95 % intervals over sentences."
        )
        return finish(
            drawing,
            "scatter",
            "Adaptation against forgetting",
            f"{words} The best corner is the upper right.",
        )


def _centres(points: Sequence[ScatterPoint]) -> tuple[list[float], list[float]]:
    return [point.source[0] for point in points], [point.target[0] for point in points]


def _cross(axes: Any, point: ScatterPoint, color: str) -> None:
    """Draw the two intervals of a run."""
    x, y = 100 * point.source[0], 100 * point.target[0]
    style: dict[str, Any] = {"color": color, "alpha": 0.4, "linewidth": 1.4}
    axes.plot([100 * v for v in point.source[1:]], [y, y], **style)
    axes.plot([x, x], [100 * v for v in point.target[1:]], **style)


def arm_figure(arms: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> Figure | None:
    """Return F1 after training by arm: a point a seed, a bar at the mean; None without scores.

    Args:
        arms: (name, target F1 of its seeds, source F1 of its seeds), as fractions.
    """
    shown = [arm for arm in arms if arm[1]]
    if not shown:
        return None
    with canvas(4.8, max(4.0, 1.2 + 0.5 * len(shown))) as (drawing, axes):
        for place, (_, target, source) in enumerate(shown):
            for values, offset, color, marker, word in (
                (target, 0.13, BLUE, "o", "target"),
                (source, -0.13, ORANGE, "s", "source"),
            ):
                height = len(shown) - place + offset
                label = word if place == 0 else None
                scaled = [100 * value for value in values]
                axes.plot(scaled, [height] * len(scaled), linestyle="none", marker=marker,
                          color=color, markeredgecolor=FACE, markersize=8, label=label)  # fmt: skip
                if len(scaled) > 1:
                    mean = sum(scaled) / len(scaled)
                    axes.plot([mean, mean], [height - 0.12, height + 0.12], color=color)
        axes.set_yticks(
            [len(shown) - i for i in range(len(shown))], [short(name) for name, _, _ in shown]
        )
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(0.4, len(shown) + 0.6)
        axes.margins(x=0.08)
        axes.set_xlabel("micro F1 after training (%)")
        axes.grid(axis="y", visible=False)
        drawing.legend(loc="outside upper left", ncols=2)
        return finish(
            drawing,
            "arms",
            "F1 by arm",
            "One point a seed; an upright line is the mean. An arm without training ends where it "
            "began.",
        )
