"""The figures of the model's own labels: how sure, how good, how well the two go together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ccrl_cli.core.reliability import brier, ece, reliability_bins, risk_coverage
from ccrl_cli.report.drawing import BLUE, FACE, ORANGE, SOFT, Figure, canvas, finish
from ccrl_cli.report.values import LabelBin

HISTOGRAM_BINS = 20

Judged = Sequence[tuple[float, bool, float]]
"""(confidence, equals gold, entity F1) of labels."""


def confidence_figure(confidences: Sequence[float], metric: str) -> Figure:
    """Return the histogram of confidence."""
    with canvas() as (drawing, axes):
        axes.hist(
            confidences,
            bins=np.linspace(0, 1, HISTOGRAM_BINS + 1).tolist(),
            color=BLUE,
            edgecolor=FACE,
            linewidth=0.8,
        )
        axes.set_xlim(0, 1)
        axes.set_xlabel(f"confidence ({_words(metric)})")
        axes.set_ylabel("inputs")
        axes.grid(axis="x", visible=False)
        return finish(
            drawing,
            "confidence",
            "How sure the model was",
            "The inputs by confidence of their pseudo-label.",
        )


def quality_figure(bins: Sequence[LabelBin]) -> Figure | None:
    """Return label quality by bin of confidence; None without gold."""
    judged = [part for part in bins if part.f1 is not None and part.exact is not None]
    if not judged:
        return None
    names = [
        f"{part.low:.2f}" if part.low == part.high else f"{part.low:.2f}–{part.high:.2f}"
        for part in judged
    ]
    with canvas() as (drawing, axes):
        places = np.arange(len(judged))
        heights = [100 * (part.f1 or 0.0) for part in judged]
        axes.bar(places, heights, width=0.72, color=BLUE, label="entity F1")
        axes.plot(
            places,
            [100 * (part.exact or 0.0) for part in judged],
            linestyle="none",
            marker="D",
            markersize=6,
            color=ORANGE,
            markeredgecolor=FACE,
            label="whole answer right",
        )
        for place, part in zip(places, judged, strict=True):
            axes.text(place, 107, f"n={part.count}", ha="center", fontsize=8.5, color=SOFT)
        slanted = len(judged) > 5
        axes.set_xticks(
            places, names, rotation=35 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_ylim(0, 117)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("confidence, least sure bin first")
        axes.set_ylabel("quality against gold (%)")
        axes.grid(axis="x", visible=False)
        drawing.legend(loc="outside upper left", ncols=2)
        return finish(
            drawing,
            "quality",
            "Label quality by confidence",
            "A curriculum can help only if quality rises to the right. Gold labels are read for "
            "this page alone; training never sees them.",
        )


def reliability_figure(judged: Judged) -> Figure | None:
    """Return mean confidence against the share of right answers; None without gold."""
    if not judged:
        return None
    confidences = [confidence for confidence, _, _ in judged]
    right = [float(exact) for _, exact, _ in judged]
    parts = reliability_bins(confidences, right)
    largest = max(part.count for part in parts)
    with canvas(4.8, 3.3) as (drawing, axes):
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1.2, linestyle="--", label="calibrated")
        x = [part.mean_confidence for part in parts]
        y = [part.mean_target for part in parts]
        axes.plot(x, y, color=BLUE, label="this run")
        axes.scatter(
            x,
            y,
            s=[28 + 90 * part.count / largest for part in parts],
            color=BLUE,
            edgecolors=FACE,
            zorder=3,
        )
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean confidence of the bin")
        axes.set_ylabel("share of answers equal to gold")
        axes.legend(loc="upper left")
        return finish(
            drawing,
            "reliability",
            "Reliability",
            f"Points under the dashed line: too sure. Larger points hold more inputs. ECE "
            f"{ece(confidences, right):.3f} ({len(parts)} bins of equal mass), Brier score "
            f"{brier(confidences, right):.3f}, {len(judged)} inputs.",
        )


def risk_figure(judged: Judged) -> Figure | None:
    """Return risk by coverage, for whole answers and for entities; None without gold."""
    if not judged:
        return None
    confidences = [confidence for confidence, _, _ in judged]
    exact = risk_coverage(confidences, [float(right) for _, right, _ in judged])
    overlap = risk_coverage(confidences, [f1 for _, _, f1 in judged])
    with canvas(4.8, 3.3) as (drawing, axes):
        for curve, color, style, word in (
            (exact, ORANGE, "-", "whole answer wrong"),
            (overlap, BLUE, "--", "1 − entity F1 of the sentence"),
        ):
            axes.plot(100 * curve.coverage, 100 * curve.risk, color=color, linestyle=style,
                      label=word)  # fmt: skip
            axes.plot([100], [100 * curve.risk[-1]], marker="o", color=color, clip_on=False)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.set_xlabel("coverage: the surest inputs (%)")
        axes.set_ylabel("risk (%)")
        axes.legend(loc="best")
        return finish(
            drawing,
            "risk",
            "Risk by coverage",
            "How wrong the labels are if only the surest are used. A curve that rises to the right "
            f"means that confidence helps. Area: {exact.area:.3f} whole answers, "
            f"{overlap.area:.3f} entities.",
        )


def _words(identifier: str) -> str:
    return identifier.replace("_", " ")
