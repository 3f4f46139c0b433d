"""Figures as inline SVG whose colours are CSS variables, so that one figure serves both themes."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from ccrl_cli.errors import PreconditionError

# matplotlib draws with stand-ins that no figure would use; the SVG gets variables of the page.
INK, SOFT, GRID, FACE = "#010101", "#020202", "#030303", "#040404"
BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY = (
    *("#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a"),
)
SERIES = (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINES = ("-", "--", "-.", ":")

_VARIABLES = {
    INK: "ink",
    SOFT: "soft",
    GRID: "line",
    FACE: "card",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PURPLE: "purple",
    YELLOW: "yellow",
    SKY: "sky",
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handlelength": 1.6,
    "lines.linewidth": 2.0,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: short name, unique on a page.
        title: heading above it.
        caption: what it shows and how to read it.
        svg: the drawing.
    """

    name: str
    title: str
    caption: str
    svg: str


def require_report_packages() -> None:
    """Raise PreconditionError when matplotlib or jinja2 are not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise PreconditionError(
            f"the page needs {' and '.join(missing)}, which this Python does not have",
            hint='pip install "ccrl[report]"',
        )


@contextmanager
def canvas(width: float = 4.8, height: float = 2.8) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its axes in the page's style, without touching matplotlib's state.

    Args:
        width: inches.
        height: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    with matplotlib.rc_context(_STYLE):
        drawing = Drawing(figsize=(width, height))
        yield drawing, drawing.add_subplot()


def short(name: str, limit: int = 24) -> str:
    """Return a name that fits beside an axis: one line, its middle left out where it is long."""
    flat = " ".join(name.split())
    if len(flat) <= limit:
        return flat
    head = (limit - 1) // 2
    return f"{flat[:head]}…{flat[len(flat) - (limit - 1 - head) :]}"


def finish(drawing: Any, name: str, title: str, caption: str) -> Figure:
    """Return a drawing as inline SVG; call it inside `canvas`.

    Args:
        drawing: the figure.
        name: unique on the page: identifiers inside the SVG derive from it.
        title: heading.
        caption: what it shows; also read out by screen readers.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The text stays text, and the reader's browser has the fonts.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        drawing.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return Figure(name, title, caption, _inline(stream.getvalue(), name, f"{title}. {caption}"))


def _inline(svg: str, name: str, description: str) -> str:
    """Return a document of matplotlib as an element of a page."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    assert box is not None, "matplotlib writes a viewBox"
    # Identifiers must differ between the figures of one page.
    rest = re.sub(r'(?<= id=")', f"{name}-", rest)
    rest = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", rest)
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r"#0[0-9a]0[0-9a]0[0-9a]", _variable, rest)
    rest = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", rest)
    label = escape(description, quote=True)
    return f'<svg class="figure" role="img" aria-label="{label}" {box[0]}>{rest.strip()}'


def _variable(match: re.Match[str]) -> str:
    name = _VARIABLES.get(match[0])
    return f"var(--{name})" if name else match[0]
