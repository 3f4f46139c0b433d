"""The page: values, tables and figures put into one HTML file that asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from ccrl_cli.findings import Caveat, CaveatKind, Finding, percent, points
from ccrl_cli.findings.comparisons import ComparedArms
from ccrl_cli.findings.runs import labeller_scores, run_finding
from ccrl_cli.report import figures, label_figures, tables
from ccrl_cli.report.drawing import Figure, require_report_packages, short
from ccrl_cli.report.examples import Group, choose_examples
from ccrl_cli.report.values import ROLES, RunFacts


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page.

    Attributes:
        html: the whole document.
        finding: its answer.
        figures: names of the figures on it.
    """

    html: str
    finding: Finding
    figures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """A number at the top of the page."""

    title: str
    value: str
    detail: str
    tone: str = ""


def render_page(
    runs: Sequence[RunFacts],
    *,
    title: str,
    created: str,
    warnings: Sequence[str] = (),
    compared: ComparedArms | None = None,
) -> Page:
    """Return the page of runs; one of them is shown in full, see `focus_of`.

    Args:
        runs: at least one.
        title: heading of the page.
        created: when the page was made.
        warnings: what could not be read; shown on the page.
        compared: comparison of the runs; None: the page opens with the finding of the focus.

    Raises:
        PreconditionError: matplotlib or jinja2 is not installed.
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("a page needs a run")
    require_report_packages()
    focus = focus_of(runs)
    drawn = _figures(runs, focus)
    answer = _answer(runs, focus, compared.finding if compared else None)
    script = _asset("page.js")
    html = _environment().get_template("page.html").render(
        _content(runs, focus),
        title=title,
        created=created,
        warnings=warnings,
        finding=answer,
        pairwise=tables.pairwise_tables(compared.comparisons if compared else ()),
        figures=drawn,
        script=script,
        style=_asset("page.css"),
        script_hash=_hash(script),
    )  # fmt: skip
    names = tuple(figure.name for part in drawn.values() for figure in part)
    # Half a character, which JSON can hold and utf-8 cannot.
    return Page(re.sub(r"[\ud800-\udfff]", "\ufffd", html), answer, names)


def _content(runs: Sequence[RunFacts], focus: RunFacts) -> dict[str, Any]:
    """Return the tables and lists of a page by their name in the template."""
    return {
        "tiles": _tiles(focus),
        "focus": focus,
        "runs": runs,
        "several": len(runs) > 1,
        "scores": tables.score_table(focus),
        "types": {role: tables.type_table(focus.domain(role)) for role in ROLES},
        "stages": tables.stage_table(focus.stages),
        "rounds": tables.round_table(focus.rounds),
        "arms": tables.arm_table(runs),
        "run_rows": tables.run_table(runs),
        "groups": _groups(focus),
        "settings": _settings(focus.manifest),
        "environment": _environment_rows(focus),
    }


def focus_of(runs: Sequence[RunFacts]) -> RunFacts:
    """Return the run that a page shows in full: the first of the curriculum arm, else the first."""
    return next((run for run in runs if run.arm == "curriculum"), runs[0])


_SAID_BY_COMPARISON = frozenset(
    {CaveatKind.one_training, CaveatKind.not_reportable, CaveatKind.few_sentences}
)
"""What a comparison says itself, of all its runs."""


def _answer(runs: Sequence[RunFacts], focus: RunFacts, compared: Finding | None) -> Finding:
    """Return the finding of a comparison and that of the run in focus beside it, or that alone."""
    own = run_finding(focus.evaluation)
    if compared is None:
        if len(runs) == 1:
            return own
        return replace(own, text=f"{focus.name}: {own.text}")
    said = {caveat.kind for caveat in compared.caveats} | _SAID_BY_COMPARISON
    beside = Caveat(CaveatKind.other_run, f"{focus.name}: {own.text}")
    rest = (caveat for caveat in own.caveats if caveat.kind not in said)
    return replace(compared, caveats=(beside, *compared.caveats, *rest))


def _tiles(run: RunFacts) -> list[Tile]:
    tiles = []
    alone = labeller_scores(run.domain("target"))
    if alone is not None:
        cell = tables.change_cell(run.domain("target").get("over_labeller"))
        detail = "the start, decoded as labels are made"
        if cell.text != "–":
            detail = f"training adds {cell.text} points ({cell.detail}), {run.decode} answers"
        tiles.append(Tile("Labeller alone F1 %", percent(alone["f1"]), detail, cell.tone))
    for role in ROLES:
        before, after = run.f1(role, "before"), run.f1(role, "after")
        if before is None and after is None:
            continue
        shown = " → ".join(percent(value) for value in (before, after) if value is not None)
        cell = tables.change_cell(run.domain(role).get("delta_f1"))
        detail = "" if cell.text == "–" else f"{cell.text} points ({cell.detail})"
        tiles.append(Tile(f"{role.capitalize()} F1 %", shown, detail, cell.tone))
    lost = (run.evaluation or {}).get("forgetting")
    if lost is not None:
        tiles.append(Tile("Forgetting", points(lost), "points of source F1 lost; below 0: gained"))
    if run.metrics:
        kl, median = tables.last_kl(run), tables.last_kl(run, "kl_median")
        detail = "" if kl is None else f"KL to the start {kl:.3f} nats a token"
        if median is not None:
            detail += f", of the median answer {median:.3f}"
        tiles.append(Tile("Training", f"{len(run.metrics)} steps", detail))
    if run.labels is not None and run.labels.f1 is not None:
        detail = f"{percent(run.labels.exact or 0.0)} % of {len(run.labels.judged)} wholly right"
        tiles.append(Tile("Pseudo-label F1 %", percent(run.labels.f1), detail))
    return tiles


def _figures(runs: Sequence[RunFacts], focus: RunFacts) -> dict[str, list[Figure]]:
    """Return the figures by section."""
    found: dict[str, list[Figure | None]] = {
        "scores": [_score_figure(focus), _change_figure(focus)],
        "training": [_step_figure(panel, runs) for panel in figures.PANELS],
        "labels": [],
        "comparison": [],
    }
    if focus.labels is not None:
        labels = focus.labels
        found["labels"] = [
            label_figures.confidence_figure(labels.confidences, labels.metric),
            label_figures.quality_figure(labels.bins),
            label_figures.reliability_figure(labels.judged),
            label_figures.risk_figure(labels.judged),
        ]
    if len(runs) > 1:
        found["comparison"] = [
            figures.arm_figure(tables.arm_scores(runs)),
            figures.scatter_figure(_scatter(runs)),
        ]
    return {name: [item for item in part if item is not None] for name, part in found.items()}


def _score_figure(run: RunFacts) -> Figure | None:
    rows = []
    for role in ROLES:
        domain = run.domain(role)
        scores = [domain.get(when) or {} for when in ("before", "after")]
        if all(item.get("f1_low") is not None for item in scores):
            rows.append((f"{role}\n{short(domain['data'])}", scores[0], scores[1]))
    return figures.score_figure(rows) if rows else None


def _change_figure(run: RunFacts) -> Figure | None:
    rows = [
        (f"{role}\n{short(domain['data'])}", domain["delta_f1"])
        for role in ROLES
        if (domain := run.domain(role)).get("delta_f1")
    ]
    return figures.change_figure(rows) if rows else None


def _step_figure(panel: figures.Panel, runs: Sequence[RunFacts]) -> Figure | None:
    trained = [run for run in runs if run.metrics]
    if not trained:
        return None
    ends = [int(stage["step"]) for stage in trained[0].stages]
    name = panel.key.replace("_", "-")
    if len(trained) == 1:
        return figures.step_figure(panel, [_line(trained[0].name, panel, trained)], ends, name=name)
    arms = list(dict.fromkeys(run.arm for run in trained))
    lines = [_line(arm, panel, [run for run in trained if run.arm == arm]) for arm in arms]
    return figures.step_figure(panel, lines, [], name=name)


def _line(label: str, panel: figures.Panel, runs: Sequence[RunFacts]) -> figures.Line:
    """Return the mean over runs of one record's value, by step."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for record in run.metrics:
            if record.get(panel.key) is not None:
                found.setdefault(int(record["step"]), []).append(float(record[panel.key]))
    steps = sorted(found)
    return figures.Line(label, steps, [sum(found[s]) / len(found[s]) for s in steps])


def _scatter(runs: Sequence[RunFacts]) -> list[figures.ScatterPoint]:
    points_ = []
    for run in runs:
        target, source = (run.domain(role).get("delta_f1") for role in ROLES)
        if target and source:
            points_.append(figures.ScatterPoint(run.arm, _triple(target), _triple(source)))
    return points_


def _triple(change: Mapping[str, float]) -> tuple[float, float, float]:
    return change["value"], change["low"], change["high"]


def _groups(run: RunFacts) -> list[tuple[str, tuple[Group, ...]]]:
    """Return the examples by domain; of the source only what training made worse."""
    found = []
    for role in ROLES:
        before = run.predictions.get((role, "before"))
        after = run.predictions.get((role, "after"))
        if before and after:
            groups = choose_examples(before, after)
            found.append((role, groups if role == "target" else groups[1:2]))
    return found


def _settings(manifest: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (key, value, origin) of every value of the profile."""
    profile, origins = manifest.get("profile") or {}, manifest.get("origins") or {}
    rows = []
    for key, origin in sorted(origins.items()):
        value: Any = profile
        parts = key.split(".")
        for place, part in enumerate(parts):
            if not isinstance(value, Mapping):
                value = None
                break
            rest = ".".join(parts[place:])  # identifiers of types may hold dots themselves
            if rest in value:
                value = value[rest]
                break
            value = value.get(part)
        rows.append((key, "" if value is None else str(value), str(origin)))
    return rows


def _environment_rows(run: RunFacts) -> list[tuple[str, str]]:
    manifest = run.manifest
    git = manifest.get("git") or {}
    rows = [
        ("profile digest", str(manifest.get("digest", ""))),
        ("seed", str(run.seed)),
        *(
            (f"data {name}", f"SHA-256 {digest}")
            for name, digest in (manifest.get("data") or {}).items()
        ),
        *((name, str(value)) for name, value in (manifest.get("hardware") or {}).items()),
        *((name, str(value)) for name, value in (manifest.get("versions") or {}).items()),
        *((f"seconds of {name}", f"{value:.0f}") for name, value in run.seconds.items()),
    ]
    if git:
        state = " (with changes)" if git.get("changed") else ""
        rows.append(("git commit", f"{git.get('commit', '')}{state}"))
    return rows


# --- template -----------------------------------------------------------------------------------


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Everything is escaped; what is ours (figures, style, script) is marked safe in the template.
    return Environment(
        loader=PackageLoader("ccrl_cli.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    place = resources.files("ccrl_cli.report").joinpath("templates", name)
    return place.read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(script: str) -> str:
    """Return the hash by which the page's policy allows its own script and no other."""
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
