"""Drawings in plain characters: bars and curves that every terminal can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

BAR_WIDTH = 40

Point = tuple[float, float]


def bars(counts: Sequence[int]) -> Iterator[str]:
    """Yield one bar a bin of [0, 1]; the longest has `BAR_WIDTH` blocks, a filled one at least 1.

    Args:
        counts: inputs in each of B bins of equal width.
    """
    width, most = len(str(max(counts))), max(counts)
    for number, count in enumerate(counts):
        low, high = number / len(counts), (number + 1) / len(counts)
        blocks = max(round(BAR_WIDTH * count / most), 1) if count else 0
        yield f"  {low:.1f} to {high:.1f}  {count:>{width}}  {'█' * blocks}".rstrip()


def plot(
    points: Mapping[str, Sequence[Point]], *, width: int = 61, height: int = 16
) -> Iterator[str]:
    """Yield the lines of a picture over [0, 1] x [0, 1], with its vertical axis in percent.

    Args:
        points: one character to the points it marks; later marks are drawn over earlier ones.
        width: columns of the picture, at least 2.
        height: rows of the picture, at least 2.
    """
    grid = [[" "] * width for _ in range(height)]
    for mark, places in points.items():
        for x, y in places:
            column = round(min(1.0, max(0.0, x)) * (width - 1))
            row = round((1.0 - min(1.0, max(0.0, y))) * (height - 1))
            grid[row][column] = mark
    for number, cells in enumerate(grid):
        level = 1.0 - number / (height - 1)
        shown = f"{100 * level:.0f}%" if number % 5 == 0 or number == height - 1 else ""
        yield f"  {shown:>4} |{''.join(cells)}".rstrip()
    yield "       +" + "-" * width


def spread(values: Sequence[float], columns: int) -> list[Point]:
    """Return a curve over [0, 1] from values at even steps, one point a column.

    Args:
        values: at least one.
        columns: points wanted, at least 2.
    """
    last = len(values) - 1
    return [
        (column / (columns - 1), values[round(column * last / (columns - 1))])
        for column in range(columns)
    ]
