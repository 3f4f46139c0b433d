"""Pictures of the learning core: reliability diagram and pacings, as PNG, SVG or PDF."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccrl_cli.errors import PreconditionError, UsageError

SUFFIXES = (".png", ".svg", ".pdf")

Bins = Sequence[tuple[float, float, int]]
"""Mean confidence, mean target, inputs of each bin."""


def check_figure_path(path: Path) -> Path:
    """Return the path if a picture can be written there.

    Raises:
        UsageError: its suffix is not that of a picture.
        PreconditionError: its folder or the plotting library is missing.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{path} is no picture: its name ends with {path.suffix!r}",
            hint=f"end it with one of {', '.join(SUFFIXES)}",
        )
    if not path.parent.is_dir():
        raise PreconditionError(f"{path.parent} does not exist", hint="make the folder first")
    _pyplot()
    return path


def reliability_figure(path: Path, before: Bins, after: Mapping[str, Bins], *, title: str) -> None:
    """Write a reliability diagram: mean target against mean confidence, before and after.

    Args:
        path: picture to write.
        before: bins of the confidence as it is.
        after: bins after each calibrator.
        title: what it shows.
    """
    figure, axes = _figure(5.0, 5.0)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect")
    markers = iter("s^Dvx")
    for name, bins in {"before": before, **after}.items():
        marker = "o" if name == "before" else next(markers)
        axes.plot(
            [confidence for confidence, _, _ in bins],
            [target for _, target, _ in bins],
            marker=marker,
            linewidth=2 if name == "before" else 1,
            label=name,
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="mean confidence", ylabel="mean target", title=title)
    axes.set_aspect("equal")
    axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


def pacing_figure(
    path: Path,
    curves: Mapping[str, Sequence[float]],
    *,
    chosen: str,
    run: tuple[Sequence[int], Sequence[float]] | None = None,
) -> None:
    """Write the open share of each pacing by step, and what a run opened.

    Args:
        path: picture to write.
        curves: open share at each step, by pacing.
        chosen: pacing that is drawn boldly.
        run: steps and open shares of a training.
    """
    figure, axes = _figure(7.0, 4.2)
    for name, shares in curves.items():
        axes.step(
            range(1, len(shares) + 1),
            shares,
            where="mid",
            linewidth=2.5 if name == chosen else 1,
            label=f"{name} (chosen)" if name == chosen else name,
        )
    if run is not None:
        axes.plot(*run, ".", color="black", markersize=4, label="opened by the run")
    axes.set(ylim=(0, 1.03), xlabel="generation step", ylabel="open share of the order")
    axes.legend(loc="lower right", frameon=False)
    _save(figure, path)


def _pyplot() -> Any:
    """Return the figure class of matplotlib, without a window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PreconditionError(
            "pictures need matplotlib, which this Python does not have",
            hint='pip install "ccrl[report]"; the drawing in the terminal needs nothing',
        ) from error
    return Figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = _pyplot()(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    # No date and a fixed salt: equal data give equal files.
    import matplotlib as mpl

    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with (
        mpl.rc_context({"svg.hashsalt": "ccrl", "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        figure.savefig(path, dpi=150, metadata=metadata)
