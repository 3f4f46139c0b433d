"""The comparison of arms as text, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ccrl_cli.cli.output import format_table

if TYPE_CHECKING:
    from ccrl_cli.core.statistics import Spread
    from ccrl_cli.pipelines.comparison.compare import ArmRow, CompareResult
    from ccrl_cli.pipelines.comparison.verdicts import PairwiseComparison

NO_MEASURE = "-"


def compare_lines(result: CompareResult) -> Iterator[str]:
    """Yield a comparison as a reader sees it; F1 and shares in percent, gaps in points."""
    yield result.headline
    for caveat in result.caveats:
        yield f"  {caveat}"
    yield ""
    sizes = ", ".join(f"{n} {role} sentences" for role, n in result.num_sentences.items())
    yield f"Arms at one update budget (mean ± standard deviation over seeds; {sizes})"
    yield _arm_table(result.rows)
    yield _budget(result.rows)
    for role in result.num_sentences:
        comparisons = [comparison for comparison in result.comparisons if comparison.domain == role]
        if comparisons:
            yield ""
            number = len(result.comparisons)
            yield f"{role} F1, paired by sentence; p after Holm over all {number} rows"
            yield _comparison_table(comparisons)
    yield ""
    yield result.reference_warning
    columns = ["system", "scored on", "F1 %", "source"]
    rows = [
        [row.system, row.setting, f"{row.f1:.1f}", row.source] for row in result.reference_scores
    ]
    yield format_table(columns, rows)
    if not result.reportable:
        yield "not reportable: mock labels, or a part of a split was scored"


def _arm_table(rows: Sequence[ArmRow]) -> str:
    columns = ["arm", "seeds", "target F1 %", "source F1 %", "forgetting", "KL", "label F1 %"]
    columns += ["updates", "rollouts", "seconds"]
    return format_table(columns, [_arm_cells(row) for row in rows])


def _arm_cells(row: ArmRow) -> list[object]:
    name = row.arm if row.kind != "bound" else f"{row.arm} (trained on gold: a bound)"
    return [
        name,
        len(row.seeds),
        spread(row.target_f1),
        spread(row.source_f1),
        spread(row.forgetting, sign=True),
        NO_MEASURE if row.kl is None else f"{row.kl.mean:.4f}",
        spread(row.label_f1),
        row.updates,
        row.rollouts,
        f"{row.seconds:.0f}",
    ]


def _budget(rows: Sequence[ArmRow]) -> str:
    planned = sorted({row.planned_updates for row in rows if row.planned_updates})
    if not planned:
        return "No arm of this table is trained."
    return (
        f"Every trained arm has a budget of {planned[0]} updates, and every RL arm the same number "
        "of rollouts; naive-sft has none, and reads as many inputs an update."
    )


def _comparison_table(comparisons: Sequence[PairwiseComparison]) -> str:
    columns = ["arm", "against", "points", "95 % interval", "p", "p (Holm)", "ahead in seeds"]
    rows: list[list[object]] = [
        [
            comparison.first,
            comparison.second,
            f"{100 * comparison.difference.value:+.1f}",
            f"{100 * comparison.difference.low:+.1f} to {100 * comparison.difference.high:+.1f}",
            f"{comparison.p_value:.4f}",
            f"{comparison.p_holm:.4f}",
            f"{comparison.ahead} of {len(comparison.seeds)}",
        ]
        for comparison in comparisons
    ]
    return format_table(columns, rows)


def spread(value: Spread | None, *, sign: bool = False) -> str:
    """Return mean and standard deviation in percent, such as ``41.2 ± 0.8``."""
    if value is None:
        return NO_MEASURE
    mean = f"{100 * value.mean:+.1f}" if sign else f"{100 * value.mean:.1f}"
    return mean if value.deviation is None else f"{mean} ± {100 * value.deviation:.1f}"


_FIELDS = ("target_f1", "source_f1", "forgetting", "kl", "label_f1")


def compare_csv(result: CompareResult) -> str:
    """Return the arms as CSV with a header; fractions at full precision, empty where unmeasured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["arm", "kind", "seeds"]
    head += [name for field in _FIELDS for name in (field, f"{field}_deviation")]
    writer.writerow([*head, "updates", "planned_updates", "rollouts", "seconds"])
    for row in result.rows:
        cells: list[object] = [row.arm, row.kind, len(row.seeds)]
        for field in _FIELDS:
            value: Spread | None = getattr(row, field)
            cells += ["", ""] if value is None else [value.mean, value.deviation]
        writer.writerow(
            ["" if cell is None else cell for cell in cells]
            + [row.updates, row.planned_updates, row.rollouts, row.seconds]
        )
    return stream.getvalue()


def compare_latex(result: CompareResult) -> str:
    """Return the arms as a LaTeX table in booktabs style."""
    lines = [
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        r"Arm & Seeds & Target F1 & Source F1 & Forgetting & KL & Updates \\",
        r"\midrule",
    ]
    for row in result.rows:
        name = row.arm + (r"\textsuperscript{$\dagger$}" if row.kind == "bound" else "")
        kl = NO_MEASURE if row.kl is None else f"{row.kl.mean:.4f}"
        values = [spread(row.target_f1), spread(row.source_f1), spread(row.forgetting, sign=True)]
        cells = [name, str(len(row.seeds)), *map(_latex, values), kl, str(row.updates)]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if any(row.kind == "bound" for row in result.rows):
        lines.append(r"% $\dagger$ trained on gold labels: an upper bound, no method")
    return "\n".join(lines) + "\n"


def _latex(cell: str) -> str:
    return cell if cell == NO_MEASURE else "$" + cell.replace(" ± ", r" \pm ") + "$"
