"""The tables of a page, as rows of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ccrl_cli.core.statistics import seed_spread
from ccrl_cli.findings import percent, points, span
from ccrl_cli.findings.comparisons import PairwiseComparison, outcome
from ccrl_cli.report.values import ROLES, RoundFacts, RunFacts


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its words, smaller words under them, and how it is to be read.

    Attributes:
        text: the value.
        detail: smaller, for example an interval.
        tone: ``up``, ``down`` or nothing.
        bar: share of the cell's width that a bar fills, in [0, 1].
    """

    text: str
    detail: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table: names of the columns, rows of cells; the first cell of a row names it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


_SHARES = (
    ("precision", "Precision"),
    ("recall", "Recall"),
    ("macro_f1", "Macro F1"),
    ("seqeval_f1", "seqeval F1"),
    ("exact_share", "Whole sentence right"),
    ("hallucinated_share", "Not in the text"),
    ("invalid_share", "Invalid answers"),
    ("repaired_share", "Repaired answers"),
    ("truncated_share", "Cut off answers"),
)


_WAYS = (
    ("typed", "types by evidence"),
    ("vote", "decoded as labels are made"),
    ("majority", "majority of K answers"),
)
"""Ways of decoding besides greedily, and what they are called on the page."""


#: More types than this that were predicted without being in the gold labels share one row.
MOST_STRAYS = 3


def score_table(run: RunFacts) -> Table | None:
    """Return all scores of both domains, before, after and the change; None without any."""
    roles = [role for role in ROLES if run.domain(role)]
    if not roles:
        return None
    columns = ["percent"]
    for role in roles:
        columns += [f"{role}, before", "after", "change"]
    rows = [(Cell("Micro F1"), *(c for role in roles for c in _f1_cells(run.domain(role))))]
    for way, title in _WAYS:
        ways = [(run.domain(role).get("decoded") or {}).get(way) or {} for role in roles]
        if any(ways):
            rows.append((Cell(f"Micro F1, {title}"), *(c for way in ways for c in _f1_cells(way))))
    for key, title in _SHARES:
        cells = [c for role in roles for c in _share_cells(run.domain(role), key)]
        if any(cell.text != "–" for cell in cells):
            rows.append((Cell(title), *cells))
    return Table(tuple(columns), tuple(rows))


def _f1_cells(domain: Mapping[str, Any]) -> Iterator[Cell]:
    """Yield F1 before and after, and the change, of a domain or of one way of decoding."""
    for when in ("before", "after"):
        scores = domain.get(when)
        yield Cell("–") if not scores else Cell(percent(scores["f1"]), _range(scores))
    yield change_cell(domain.get("delta_f1"))


def change_cell(change: Mapping[str, float] | None) -> Cell:
    """Return a change of F1 with its interval; coloured when the interval leaves out 0."""
    if not change:
        return Cell("–")
    tone = "up" if change["low"] > 0 else "down" if change["high"] < 0 else ""
    return Cell(
        points(change["value"]), f"{points(change['low'])} to {points(change['high'])}", tone
    )


def _range(scores: Mapping[str, Any]) -> str:
    if scores.get("f1_low") is None or scores.get("f1_high") is None:
        return ""
    return f"{percent(scores['f1_low'])} to {percent(scores['f1_high'])}"


def _share_cells(domain: Mapping[str, Any], key: str) -> Iterator[Cell]:
    old, new = ((domain.get(when) or {}).get(key) for when in ("before", "after"))
    for value in (old, new):
        yield Cell("–") if value is None else Cell(percent(value))
    yield Cell("–") if old is None or new is None else Cell(points(new - old))


def type_table(domain: Mapping[str, Any]) -> Table | None:
    """Return F1 by type before and after, most gold mentions first; None without scores."""
    before = (domain.get("before") or {}).get("per_type") or {}
    after = (domain.get("after") or {}).get("per_type") or {}
    names = sorted(
        {*before, *after},
        key=lambda name: (-(after.get(name) or before[name])["gold"], name),
    )
    if not names:
        return None
    strays = [name for name in names if not (after.get(name) or before[name])["gold"]]
    if len(strays) <= MOST_STRAYS:
        strays = []
    rows: list[tuple[Cell, ...]] = []
    for name in names[: len(names) - len(strays)]:
        old, new = before.get(name), after.get(name)
        # A type that is named before training alone has no mention after it.
        shown = new or ({**before[name], "predicted": 0} if after else before[name])
        change = None if not old or not new else new["f1"] - old["f1"]
        rows.append(
            (
                Cell(name),
                Cell(str(shown["gold"])),
                Cell(str(shown["predicted"])),
                Cell(percent(shown["precision"]) if shown["predicted"] else "–"),
                Cell(percent(shown["recall"]) if shown["gold"] else "–"),
                Cell("–") if not old else Cell(percent(old["f1"]), bar=old["f1"]),
                Cell("–") if not new else Cell(percent(new["f1"]), bar=new["f1"]),
                Cell("–" if change is None else points(change)),
            )
        )
    if strays:
        made = sum((after or before).get(name, {"predicted": 0})["predicted"] for name in strays)
        others = Cell(f"{len(strays)} other types, without gold")
        rows.append((others, Cell("0"), Cell(str(made)), *[Cell("–")] * 5))
    columns = ("type", "gold", "predicted", "P %", "R %", "F1 before %", "F1 after %", "change")
    return Table(columns, tuple(rows))


_STAGE_COLUMNS = (
    ("reward", "reward"),
    ("reward_overlap", "overlap"),
    ("kl", "KL"),
    ("zero_spread_share", "groups without spread %"),
    ("valid_share", "valid answers %"),
    ("entities", "entities an answer"),
)


def stage_table(stages: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the means by stage; None without stages."""
    if not stages:
        return None
    keys = [(key, title) for key, title in _STAGE_COLUMNS if any(key in s for s in stages)]
    rows = tuple(
        (
            Cell(str(stage["stage"])),
            Cell(str(stage["steps"])),
            Cell(str(stage["num_open"])),
            *(Cell(_stage_value(stage.get(key), title)) for key, title in keys),
        )
        for stage in stages
    )
    return Table(("stage", "steps", "open inputs", *(title for _, title in keys)), rows)


def _stage_value(value: float | None, title: str) -> str:
    if value is None:
        return "–"
    return percent(value) if title.endswith("%") else f"{value:.3f}"


def arm_table(runs: Sequence[RunFacts]) -> Table:
    """Return one row an arm: mean and spread over its seeds, by each way of decoding."""
    ways = ["greedy", *dict.fromkeys(run.decode for run in runs if run.decode != "greedy")]
    columns = [(role, way) for role in ROLES for way in ways]
    columns = [c for c in columns if c[1] == "greedy" or any(r.final_f1(*c) for r in runs)]
    rows = []
    for arm in dict.fromkeys(run.arm for run in runs):
        mine = [run for run in runs if run.arm == arm]
        lost = [run.evaluation.get("forgetting") for run in mine if run.evaluation]
        cells = [
            Cell(arm),
            Cell(str(len(mine))),
            *(_spread_cell([run.final_f1(role, way) for run in mine]) for role, way in columns),
            _points_cell([value for value in lost if value is not None]),
            _mean_cell([kl for run in mine if (kl := last_kl(run)) is not None], "{:.3f}"),
            _mean_cell([float(len(run.metrics)) for run in mine], "{:.0f}"),
        ]
        rows.append(tuple(cells))
    titles = (f"{role} F1 %, {way}" for role, way in columns)
    return Table(("arm", "runs", *titles, "forgetting", "KL", "steps"), tuple(rows))


def pairwise_tables(comparisons: Sequence[PairwiseComparison]) -> list[tuple[str, Table]]:
    """Return the differences between arms by domain, each with its caption."""
    found = []
    for role in ROLES:
        mine = [comparison for comparison in comparisons if comparison.domain == role]
        if mine:
            rows = tuple(_pairwise_row(comparison) for comparison in mine)
            caption = (
                f"{role.capitalize()} F1 of {mine[0].decode} answers, points. Tested over pairs of "
                "trainings, p after Holm; coloured where that is below 0.05"
            )
            found.append((caption, Table(_PAIRWISE_COLUMNS, rows)))
    return found


_PAIRWISE_COLUMNS = (
    *("arm", "against", "difference", "pairs", "ahead in", "p after Holm"),
    "these weights, other sentences",
)


def _pairwise_row(comparison: PairwiseComparison) -> tuple[Cell, ...]:
    trainings, told = comparison.trainings, outcome(comparison)
    limits = "over trainings: cannot be told"
    if trainings.low is not None and trainings.high is not None:
        limits = f"over trainings: {span(trainings.low, trainings.high)}"
    tone = {"higher": "up", "lower": "down", "open": ""}[told]
    p_value = comparison.p_holm
    return (
        Cell(comparison.first),
        Cell(comparison.second),
        Cell(points(trainings.mean), limits, tone),
        Cell(str(len(comparison.pairs))),
        Cell(str(comparison.ahead)),
        Cell("–" if p_value is None else f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"),
        Cell(span(comparison.sentences.low, comparison.sentences.high)),
    )


def round_table(rounds: Sequence[RoundFacts]) -> Table | None:
    """Return one row a round; None where there was a single one."""
    if not rounds:
        return None

    def share(value: float | None) -> Cell:
        return Cell("–" if value is None else percent(value))

    rows = tuple(
        (
            Cell(str(item.number)),
            Cell(str(item.steps)),
            share(item.label_f1),
            share(item.agreement),
            share(item.changed_share),
            share(item.target_f1),
            share(item.source_f1),
        )
        for item in rounds
    )
    columns = ("round", "steps", "label F1 %", "agreement with the labels before %", "changed %")
    return Table((*columns, "target F1 % after", "source F1 % after"), rows)


def arm_scores(runs: Sequence[RunFacts]) -> list[tuple[str, list[float], list[float]]]:
    """Return (arm, target F1 of its seeds, source F1 of its seeds), decoded the profile's way."""
    found = []
    for arm in dict.fromkeys(run.arm for run in runs):
        mine = [run for run in runs if run.arm == arm]
        target, source = (
            [value for run in mine if (value := _ending(run, role)) is not None] for role in ROLES
        )
        found.append((arm, target, source))
    return found


def _ending(run: RunFacts, role: str) -> float | None:
    """Return what a run ends with, decoded the profile's way where it was scored so."""
    found = run.final_f1(role, run.decode)
    return run.final_f1(role, "greedy") if found is None else found


def _spread_cell(values: Sequence[float | None]) -> Cell:
    known = [value for value in values if value is not None]
    if not known:
        return Cell("–")
    spread = seed_spread(known)
    detail = "" if spread.deviation is None else f"± {percent(spread.deviation)}"
    return Cell(percent(spread.mean), detail)


def _points_cell(values: Sequence[float]) -> Cell:
    if not values:
        return Cell("–")
    spread = seed_spread(values)
    detail = "" if spread.deviation is None else f"± {percent(spread.deviation)}"
    return Cell(points(spread.mean), detail)


def _mean_cell(values: Sequence[float], form: str) -> Cell:
    return Cell(form.format(sum(values) / len(values))) if values else Cell("–")


def last_kl(run: RunFacts, key: str = "kl") -> float | None:
    """Return the last KL that was measured: the mean over tokens, or ``kl_median``."""
    measured = [record[key] for record in run.metrics if record.get(key) is not None]
    return float(measured[-1]) if measured else None


def run_table(runs: Sequence[RunFacts]) -> Table:
    """Return one row a run: target and source before, after and change."""
    rows = []
    for run in runs:
        cells = [Cell(run.name), Cell(run.arm), Cell(str(run.seed))]
        for role in ROLES:
            domain = run.domain(role)
            value = run.final_f1(role)
            cells.append(Cell("–" if value is None else percent(value)))
            cells.append(change_cell(domain.get("delta_f1")))
        rows.append(tuple(cells))
    columns = ("run", "arm", "seed", "target F1 %", "change", "source F1 %", "change")
    return Table(columns, tuple(rows))
