"""The Markdown page of ``benchmarks/label_quality.py``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def markdown(document: Mapping) -> str:
    """Return the results as Markdown tables."""
    lines = [
        "# Label quality",
        "",
        f"{document['model']}, K={document['num_completions']}, T={document['temperature']}, "
        f"seed {document['seed']}; {json.dumps(document['hardware'])}; {document['seconds']} s.",
        "",
        f"`{document['command']}`",
    ]
    if document["limit"]:
        lines += ["", f"**Trial of {document['limit']} sentences: not reportable.**"]
    if document["backend"] == "mock":
        lines += ["", "**Mock completions: not reportable.**"]
    for part in document["sets"]:
        lines += ["", *_set_lines(part)]
    return "\n".join(lines) + "\n"


def _set_lines(part: Mapping) -> list[str]:
    lines = [f"## {part['data']}: {part['sentences']} sentences, {len(part['types'])} types", ""]
    lines += ["F1 in percent, 95 % bootstrap intervals; data digest " + part["digest"][:16], ""]
    lines += _table(
        ["sampling", *next(iter(part["sampling"].values()))],
        [[name, *map(_share, found.values())] for name, found in part["sampling"].items()],
    )
    lines += ["", "### Metric and rule (listed types)", "", *_rows(part)]
    lines += ["", "### Type list shuffled for each sample, minus not (label F1, points)", ""]
    lines += _table(
        ["rule", "difference", "p"],
        [
            [rule, _interval(found["difference"], 100), f"{found['p_value']:.3f}"]
            for rule, found in part["varied_against_plain"].items()
        ],
    )
    lines += ["", "### Listed types (filtered after decoding) against free types (label F1)", ""]
    lines += _free_types(part)
    lines += ["", "### Single entities: AUROC against right entity, right span, right type", ""]
    lines += _table(
        ["evidence", "entity", "span", "type, given the span"],
        [
            [row["evidence"], *(_interval(row[name], 1) for name in ("entity", "span", "type"))]
            for row in part["entities"]
        ],
    )
    lines += ["", "### Precision by number of votes", ""]
    lines += _table(
        ["votes", "entities", "precision"],
        [[r["votes"], r["entities"], f"{r['precision']:.2f}"] for r in part["precision_by_votes"]],
    )
    timings = ", ".join(f"{name} {value:g}" for name, value in part["seconds"].items())
    return [*lines, "", f"Seconds: {timings}."]


def _rows(part: Mapping) -> list[str]:
    headers = ["sampling", "rule", "metric", "label F1", "AUROC against exact"]
    shares = part["rows"][0]["top_f1"]
    return _table(
        headers + [f"top {100 * float(share):g} %" for share in shares],
        [
            [
                row["sampling"],
                row["rule"],
                row["metric"],
                _interval(row["f1"], 100),
                _interval(row["auroc"], 1),
                *map(_share, row["top_f1"].values()),
            ]
            for row in part["rows"]
        ],
    )


def _free_types(part: Mapping) -> list[str]:
    return _table(
        ["rule", "listed", "free", "difference", "p"],
        [
            [
                rule,
                _interval(found["listed"], 100),
                _interval(found["free"], 100),
                _interval(found["difference"]["difference"], 100),
                f"{found['difference']['p_value']:.3f}",
            ]
            for rule, found in part["free_types"].items()
        ],
    )


def _table(headers: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(map(str, headers)) + " |", "|" + " --- |" * len(headers)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(found: Mapping | None, scale: int) -> str:
    if found is None:
        return "-"
    digits = 1 if scale == 100 else 3
    low, high = scale * found["low"], scale * found["high"]
    return f"{scale * found['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
