"""`ccrl evaluate`: span F1 of target and source, before and after training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting
from ccrl_cli.cli.output import format_table
from ccrl_cli.findings import finding_lines
from ccrl_cli.findings.runs import run_finding

if TYPE_CHECKING:
    from ccrl_cli.core.statistics import Interval
    from ccrl_cli.pipelines.evaluation.evaluate import DomainEvaluation, EvaluationResult
    from ccrl_cli.pipelines.evaluation.scoring import Scores

app = new_app()


class Phase(StrEnum):
    """Which weights are scored."""

    before = "before"
    after = "after"
    both = "both"


class DecodeChoice(StrEnum):
    """How answers are decoded."""

    greedy = "greedy"
    typed = "typed"
    vote = "vote"


class DomainChoice(StrEnum):
    """Which domain is scored."""

    target = "target"
    source = "source"
    both = "both"


SPLIT = setting("evaluation.split", str, "train, dev or test; train scores transductively.")
BATCH = setting("evaluation.batch_size", int, "Inputs decoded together.")
PhaseOption = Annotated[
    Phase | None,
    typer.Option(
        "--phase",
        help="Starting policy, trained adapter or both; default: what there is.",
        show_default=False,
    ),
]
DomainOption = Annotated[DomainChoice, typer.Option("--domain", help="Which domain to score.")]
Adapter = Annotated[
    Path | None,
    typer.Option("--adapter", help="Score this adapter in place of the run's.", show_default=False),
]


Decode = Annotated[
    DecodeChoice | None,
    typer.Option(
        "--decode",
        help="Beside greedily: typed (types by evidence) or vote (as labels are made); default: "
        "the target as evaluation.decode says, and the labeller.",
        show_default=False,
    ),
]
Majority = Annotated[
    bool,
    typer.Option(
        "--majority",
        help="Also score what K samples a sentence agree on, types by votes too.",
    ),
]
Predictions = Annotated[
    Path | None,
    typer.Option(
        "--predictions",
        help="Score this file, of any system, against --gold; no model is loaded.",
        show_default=False,
    ),
]
Gold = Annotated[
    Path | None,
    typer.Option("--gold", help="Labelled sentences for --predictions.", show_default=False),
]
Errors = Annotated[
    int,
    typer.Option("--errors", min=0, help="Show the sentences with the most mistakes, so many."),
]


@command(app, "evaluate", SPLIT, BATCH)
def evaluate(  # noqa: PLR0913 (its parameters are flags)
    invocation: Invocation,
    phase: PhaseOption = None,
    domain: DomainOption = DomainChoice.both,
    adapter: Adapter = None,
    decode: Decode = None,
    majority: Majority = False,
    predictions: Predictions = None,
    gold: Gold = None,
    errors: Errors = 0,
) -> None:
    """Score source and target by span F1, before and after; or any system's file."""
    if predictions is not None or gold is not None:
        _score_files(invocation, predictions, gold, errors)
        return
    from ccrl_cli.pipelines.evaluation.answering import ROLES
    from ccrl_cli.pipelines.evaluation.evaluate import PHASES, EvaluateOptions
    from ccrl_cli.pipelines.evaluation.evaluate import evaluate as run

    loaded = invocation.load()
    result = run(
        loaded.profile,
        EvaluateOptions(
            phases=None if phase is None else [p for p in PHASES if phase.value in (p, "both")],
            roles=[role for role in ROLES if domain.value in (role, "both")],
            adapter=adapter,
            decode=None if decode is None else decode.value,
            majority=majority,
        ),
        reporter=invocation.reporter,
        origins=loaded.origins,
    )
    scored = [s for d in result.domains.values() for s in (d.before, d.after) if s]
    shown = _errors(invocation, loaded.profile.run_path, result, errors) if errors else ()
    invocation.finish(
        result,
        text="\n".join([*evaluation_lines(result), *shown]),
        counts={"sentences": sum(s.num_sentences for s in scored)},
        run_dir=loaded.profile.run_path,
    )


def _score_files(
    invocation: Invocation, predictions: Path | None, gold: Path | None, errors: int
) -> None:
    """Score a file of predictions against a file of gold labels."""
    from ccrl_cli.errors import UsageError
    from ccrl_cli.pipelines.evaluation.score_file import score_files

    if predictions is None or gold is None:
        raise UsageError(
            "--predictions and --gold belong together", hint="give both files, or neither"
        )
    result = score_files(predictions, gold)
    if result.missing:
        invocation.reporter.warn(
            f"{result.missing} gold sentences have no prediction: they count as answered with "
            "nothing"
        )
    if result.unmatched:
        invocation.reporter.warn(
            f"{result.unmatched} predictions are for sentences that {gold} does not have: left out"
        )
    lines = [
        format_table(["file", *_COLUMNS], [[predictions.name, *_cells(result.scores)]]),
        "",
        format_table(
            ["type", "gold", "predicted", "P %", "R %", "F1 %"],
            [
                [name, s.gold, s.predicted, percent(s.precision), percent(s.recall), percent(s.f1)]
                for name, s in result.scores.per_type.items()
            ],
        ),
    ]
    if errors:
        lines += ["", _browser(invocation, result.rows, errors)]
    invocation.finish(
        {
            "predictions": result.predictions,
            "gold": result.gold,
            "types": result.types,
            "scores": result.scores,
        },
        text="\n".join(lines),
        counts={
            "sentences": result.scores.num_sentences,
            "missing": result.missing,
            "left_out": result.unmatched,
        },
    )


def _errors(
    invocation: Invocation, run_dir: Path, result: EvaluationResult, limit: int
) -> Iterator[str]:
    """Yield the error browser of each scored domain, of what it ends with."""
    from ccrl_cli.store.jsonl import JsonlReader
    from ccrl_cli.store.runs import RunDirectory

    for role, scores in result.domains.items():
        when = "after" if scores.after else "before"
        place = RunDirectory(run_dir).predictions_path(f"{role}-{when}")
        rows = [row for _, row in JsonlReader(place).objects()]
        yield ""
        yield f"{role}, {when} training: {place}"
        yield _browser(invocation, rows, limit)


def _browser(invocation: Invocation, rows: Sequence[Mapping[str, Any]], limit: int) -> str:
    import sys

    from ccrl_cli.cli.errors_view import colors_shown, errors_text

    return errors_text(rows, limit, color=colors_shown(sys.stdout, invocation.state.reporter.mode))


def evaluation_lines(result: EvaluationResult) -> Iterator[str]:
    """Yield an evaluation as a reader sees it; F1 and shares in percent."""
    if "target" in result.domains:
        yield from finding_lines(run_finding(asdict(result)))
        yield ""
    yield score_table(result)
    for role, domain in result.domains.items():
        if domain.delta_f1 is not None:
            yield f"{role}: {_points(domain.delta_f1)} by training ({domain.mode})"
            for name, decoded in domain.decoded.items():
                if decoded.delta_f1 is not None:
                    yield f"{role}, {name}: {_points(decoded.delta_f1)} by training"
    if result.forgetting is not None:
        yield f"forgetting (source F1 lost): {100 * result.forgetting:+.1f} points"
    for role, domain in result.domains.items():
        yield ""
        yield f"{role} by type ({domain.data})"
        yield _type_table(domain)


def _points(delta: Interval) -> str:
    """Return a difference of F1 in percentage points with its interval."""
    return (
        f"F1 {100 * delta.value:+.1f} points (95 % interval {100 * delta.low:+.1f} to "
        f"{100 * delta.high:+.1f})"
    )


def score_table(result: EvaluationResult) -> str:
    """Return the table of scores, one row a domain and phase, in percent."""
    rows = [
        [role, when, *_cells(scores)]
        for role, domain in result.domains.items()
        for when, scores in _named_scores(domain)
        if scores is not None
    ]
    return format_table(["domain", "phase", *_COLUMNS], rows)


def _named_scores(domain: DomainEvaluation) -> Iterator[tuple[str, Scores | None]]:
    """Yield every score of a domain with its name, the start first."""
    yield "before", domain.before
    for name, decoded in domain.decoded.items():
        yield f"before, {name}", decoded.before
    yield "after", domain.after
    for name, decoded in domain.decoded.items():
        yield f"after, {name}", decoded.after


_COLUMNS = [
    "F1 %",
    "95 % interval",
    "precision %",
    "recall %",
    "macro F1 %",
    "seqeval F1 %",
    "not in text %",
    "invalid %",
    "sentences",
]


def _cells(scores: Scores) -> list[object]:
    return [
        percent(scores.f1),
        f"{100 * scores.f1_low:.1f} to {100 * scores.f1_high:.1f}",
        percent(scores.precision),
        percent(scores.recall),
        percent(scores.macro_f1),
        percent(scores.seqeval_f1),
        percent(scores.hallucinated_share),
        percent(scores.invalid_share),
        scores.num_sentences,
    ]


def _type_table(domain: DomainEvaluation) -> str:
    before = domain.before.per_type if domain.before else {}
    after = domain.after.per_type if domain.after else {}
    rows: list[list[object]] = []
    for name in sorted({*before, *after}):
        known = after.get(name) or before[name]
        rows.append(
            [
                name,
                known.gold,
                *(percent(part[name].f1) if name in part else "-" for part in (before, after)),
            ]
        )
    return format_table(["type", "gold", "F1 % before", "F1 % after"], rows)


def percent(share: float | None) -> str:
    """Return a fraction as a percentage with one decimal, ``-`` for nothing."""
    return "-" if share is None else f"{100 * share:.1f}"
