"""The comparison of arms as text and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ccrl_cli.cli.output import format_table
from ccrl_cli.findings import finding_lines, percent, points, span

if TYPE_CHECKING:
    from ccrl_cli.core.statistics import Spread
    from ccrl_cli.findings.comparisons import DomainComparison, PairwiseComparison
    from ccrl_cli.pipelines.comparison.compare import ArmRow, CompareResult, DomainsResult

NO_MEASURE = "-"


def domains_lines(result: DomainsResult) -> Iterator[str]:
    """Yield a comparison over target domains as a reader sees it, then that of each domain."""
    if len(result.domains) > 1:
        yield from finding_lines(result.finding)
        for role in ("target", "source"):
            rows = [c for c in result.comparisons if c.domain == role]
            if rows:
                yield ""
                yield f"{role} F1 over domains, means over pairs of trainings; exact sign-flip test"
                yield _domains_table(rows)
    for domain in result.domains:
        if len(result.domains) > 1:
            yield ""
            yield f"== {domain.target}"
        yield from _domain_lines(domain)
    yield from _reference_lines(result.domains[0])


def compare_lines(result: CompareResult) -> Iterator[str]:
    """Yield a comparison as a reader sees it; F1 and shares in percent, gaps in points."""
    yield from _domain_lines(result)
    yield from _reference_lines(result)


def _domain_lines(result: CompareResult) -> Iterator[str]:
    yield from finding_lines(result.finding)
    yield ""
    sizes = ", ".join(f"{n} {role} sentences" for role, n in result.num_sentences.items())
    yield f"Arms at one update budget (mean ± standard deviation over trainings; {sizes})"
    yield _arm_table(result.rows, result.decodes)
    yield _budget(result.rows)
    for role in result.num_sentences:
        comparisons = [comparison for comparison in result.comparisons if comparison.domain == role]
        if comparisons:
            yield ""
            number = sum(c.p_holm is not None for c in result.comparisons)
            after = f"; p after Holm over the {number} tests of all tables" if number else ""
            yield f"{role} F1 of {result.decodes[role]} answers, in pairs of trainings{after}"
            yield _comparison_table(comparisons)


def _reference_lines(result: CompareResult) -> Iterator[str]:
    yield ""
    yield result.reference_warning
    columns = ["system", "scored on", "F1 %", "source"]
    rows = [
        [row.system, row.setting, f"{row.f1:.1f}", row.source] for row in result.reference_scores
    ]
    yield format_table(columns, rows)


def _arm_table(rows: Sequence[ArmRow], decodes: Mapping[str, str]) -> str:
    """Return the arms; greedy scores beside those of the profile's way, where that is another."""
    both = {role: decode != "greedy" for role, decode in decodes.items()}
    columns = ["arm", "runs"]
    for role, decode in decodes.items():
        columns += [f"{role} F1 % {decode}"] + [f"{role} F1 % greedy"] * both[role]
    columns += ["forgetting", "KL", "label F1 %", "updates", "rollouts", "seconds"]
    return format_table(columns, [_arm_cells(row, both) for row in rows])


def _arm_cells(row: ArmRow, both: Mapping[str, bool]) -> list[object]:
    name = row.arm if row.kind != "bound" else f"{row.arm} (trained on gold: a bound)"
    return [
        name,
        len(row.seeds),
        *([spread(row.target_f1)] + [spread(row.target_greedy)] * both["target"]),
        *([spread(row.source_f1)] + [spread(row.source_greedy)] * both["source"]),
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
    """Return the differences: tested over trainings, and what these weights would do elsewhere."""
    columns = ["arm", "against", "points", "pairs", "ahead", "95 % over trainings", "p", "p (Holm)"]
    rows: list[list[object]] = []
    for comparison in comparisons:
        found = comparison.trainings
        tested: list[object] = ["cannot be told", NO_MEASURE, NO_MEASURE]
        if found.p_value is not None and found.low is not None and found.high is not None:
            tested = [
                span(found.low, found.high),
                _p(found.p_value),
                _p(comparison.p_holm),
            ]
        rows.append(
            [
                comparison.first,
                comparison.second,
                points(found.mean),
                len(comparison.pairs),
                comparison.ahead,
                *tested,
                span(comparison.sentences.low, comparison.sentences.high),
            ]
        )
    return format_table([*columns, "these weights, other sentences"], rows)


def _domains_table(comparisons: Sequence[DomainComparison]) -> str:
    rows: list[list[object]] = []
    for comparison in comparisons:
        found = comparison.domains
        error = found.standard_error
        rows.append(
            [
                comparison.first,
                comparison.second,
                points(found.mean),
                NO_MEASURE if error is None else percent(error),
                len(comparison.targets),
                ", ".join(map(points, found.differences)),
                "cannot be told" if found.p_value is None else _p(found.p_value),
            ]
        )
    columns = ["arm", "against", "points", "standard error", "domains", "each", "p"]
    return format_table(columns, rows)


def _p(value: float | None) -> str:
    if value is None:
        return NO_MEASURE
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def spread(value: Spread | None, *, sign: bool = False) -> str:
    """Return mean and standard deviation in percent, such as ``41.2 ± 0.8``."""
    if value is None:
        return NO_MEASURE
    mean = f"{100 * value.mean:+.1f}" if sign else f"{100 * value.mean:.1f}"
    return mean if value.deviation is None else f"{mean} ± {100 * value.deviation:.1f}"


_FIELDS = (
    *("target_f1", "source_f1", "target_greedy", "source_greedy"),
    *("forgetting", "kl", "label_f1"),
)


def compare_csv(results: Sequence[CompareResult]) -> str:
    """Return the arms as CSV with a header; fractions at full precision, empty where unmeasured."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    head = ["target", "arm", "kind", "seeds"]
    head += [name for field in _FIELDS for name in (field, f"{field}_deviation")]
    writer.writerow([*head, "updates", "planned_updates", "rollouts", "seconds"])
    for name, row in ((result.target, row) for result in results for row in result.rows):
        cells: list[object] = [name, row.arm, row.kind, len(row.seeds)]
        for field in _FIELDS:
            value: Spread | None = getattr(row, field)
            cells += ["", ""] if value is None else [value.mean, value.deviation]
        writer.writerow(
            ["" if cell is None else cell for cell in cells]
            + [row.updates, row.planned_updates, row.rollouts, row.seconds]
        )
    return stream.getvalue()
