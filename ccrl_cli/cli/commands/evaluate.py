"""`ccrl evaluate`: span F1 of target and source, before and after training."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app, setting
from ccrl_cli.cli.output import format_table

if TYPE_CHECKING:
    from ccrl_cli.pipelines.evaluate import DomainEvaluation, EvaluationResult
    from ccrl_cli.pipelines.scoring import Scores

app = new_app()


class Phase(StrEnum):
    """Which weights are scored."""

    before = "before"
    after = "after"
    both = "both"


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


@command(app, "evaluate", SPLIT, BATCH)
def evaluate(
    invocation: Invocation,
    phase: PhaseOption = None,
    domain: DomainOption = DomainChoice.both,
    adapter: Adapter = None,
) -> None:
    """Score source and target by span F1, before and after training."""
    from ccrl_cli.pipelines.evaluate import PHASES, ROLES
    from ccrl_cli.pipelines.evaluate import evaluate as run

    loaded = invocation.load()
    result = run(
        loaded.profile,
        reporter=invocation.reporter,
        phases=None if phase is None else [p for p in PHASES if phase.value in (p, "both")],
        roles=[role for role in ROLES if domain.value in (role, "both")],
        adapter=adapter,
        origins=loaded.origins,
    )
    scored = [s for d in result.domains.values() for s in (d.before, d.after) if s]
    invocation.finish(
        result,
        text="\n".join(evaluation_lines(result)),
        counts={"sentences": sum(s.num_sentences for s in scored)},
        run_dir=loaded.profile.run_path,
    )


def evaluation_lines(result: EvaluationResult) -> Iterator[str]:
    """Yield an evaluation as a reader sees it; F1 and shares in percent."""
    yield score_table(result)
    for role, domain in result.domains.items():
        if domain.delta_f1 is not None:
            delta = domain.delta_f1
            yield (
                f"{role}: F1 {100 * delta.value:+.1f} points by training, 95 % interval "
                f"{100 * delta.low:+.1f} to {100 * delta.high:+.1f} ({domain.mode})"
            )
    if result.forgetting is not None:
        yield f"forgetting (source F1 lost): {100 * result.forgetting:+.1f} points"
    for role, domain in result.domains.items():
        yield ""
        yield f"{role} by type ({domain.data})"
        yield _type_table(domain)
    if not result.reportable:
        yield "not reportable: a part of a split was scored"


def score_table(result: EvaluationResult) -> str:
    """Return the table of scores, one row a domain and phase, in percent."""
    columns = ["domain", "phase", "F1 %", "95 % interval", "precision %", "recall %", "macro F1 %"]
    columns += ["seqeval F1 %", "not in text %", "invalid %", "sentences"]
    rows = [
        [role, phase, *_cells(scores)]
        for role, domain in result.domains.items()
        for phase, scores in (("before", domain.before), ("after", domain.after))
        if scores is not None
    ]
    return format_table(columns, rows)


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
