"""Pacings compared on a run's own numbers, and what a training really opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccrl_cli.core.curriculum import Schedule
from ccrl_cli.core.pacing import PACINGS
from ccrl_cli.errors import IntegrityError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.curriculum.plan import (
    make_pacing,
    plan_entities,
    plan_schedule,
    training_order,
)
from ccrl_cli.pipelines.labelling.labels import load_labels
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

DEFAULT_STEPS = 100
"""Steps that pacings are drawn over when no store says how many inputs there are."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Open share by step.

    Attributes:
        pacing: its name.
        shares: open share at each step, the first step first.
        mean_share: mean over the steps: how much of the data an average draw chooses from.
        first_full_step: first step (from 1) at which everything is open.
    """

    pacing: str
    shares: tuple[float, ...]
    mean_share: float
    first_full_step: int


@dataclass(frozen=True, slots=True)
class RunStage:
    """A stage as a training recorded it."""

    stage: int
    steps: int
    num_open: int
    open_share: float | None
    reward: float | None
    kl: float | None
    zero_spread_share: float | None


@dataclass(frozen=True, slots=True)
class RunCurve:
    """What a training opened.

    Attributes:
        run: its directory.
        steps: optimiser steps with a record.
        shares: open share at each of them.
        as_planned: whether every step opened what the profile plans; None where the number of
            inputs differs.
        stages: its stages, with what they earned.
    """

    run: str
    steps: tuple[int, ...]
    shares: tuple[float, ...]
    as_planned: bool | None
    stages: tuple[RunStage, ...]


@dataclass(frozen=True, slots=True)
class PacingView:
    """Pacings compared.

    Attributes:
        chosen: the profile's pacing.
        num_inputs: inputs in the order; 0 if there is no store yet.
        num_steps: steps of the curves.
        prompts_per_step: inputs drawn in one step.
        curves: one for each pacing.
        run: what a training of this run opened, if there was one.
    """

    chosen: str
    num_inputs: int
    num_steps: int
    prompts_per_step: int
    curves: tuple[Curve, ...]
    run: RunCurve | None


def compare_pacings(profile: Profile, *, reporter: Reporter) -> PacingView:
    """Return every pacing over the steps of a profile, and what its run opened so far.

    Raises:
        IntegrityError: the store or a journal is damaged.
    """
    num_inputs, chosen = _schedule(profile, reporter)
    curves = []
    for name in PACINGS:
        schedule = replace(chosen, pacing=replace(chosen.pacing, shape=name))
        counts = [schedule.num_open(step) for step in range(schedule.num_steps)]
        shares = tuple(count / schedule.num_inputs for count in counts)
        curves.append(
            Curve(
                pacing=name,
                shares=shares,
                mean_share=sum(shares) / len(shares),
                first_full_step=counts.index(schedule.num_inputs) + 1,
            )
        )
    return PacingView(
        chosen=profile.curriculum.pacing,
        num_inputs=num_inputs,
        num_steps=chosen.num_steps,
        prompts_per_step=chosen.prompts_per_step,
        curves=tuple(curves),
        run=_run_curve(profile, chosen),
    )


def draw_pacings(view: PacingView, path: Path) -> None:
    """Write the curves as a picture.

    Raises:
        PreconditionError: the plotting library is missing.
        UsageError: the suffix is not that of a picture.
    """
    from ccrl_cli.report.learning_figures import pacing_figure

    pacing_figure(
        path,
        {curve.pacing: curve.shares for curve in view.curves},
        chosen=view.chosen,
        run=(view.run.steps, view.run.shares) if view.run else None,
    )


def _schedule(profile: Profile, reporter: Reporter) -> tuple[int, Schedule]:
    """Return the inputs of the order and the profile's schedule; a plain one without a store."""
    if profile.store_path.exists():
        labels = load_labels(profile, load_domain(profile, "target"))
        order = training_order(profile, labels.confidence, labels.ranks(profile))
        if order:
            entities = plan_entities(profile, labels, order)
            if entities is not None:
                return entities.schedule.num_inputs, entities.schedule
            return len(order), plan_schedule(profile, len(order), len(labels.labels))
    steps = profile.training.max_steps or DEFAULT_STEPS
    reporter.info(f"no store of completions yet: pacings are drawn over {steps} steps")
    return 0, Schedule(1000, steps, profile.training.prompts_per_step, make_pacing(profile))


def _run_curve(profile: Profile, planned: Schedule) -> RunCurve | None:
    """Return what the journals of the profile's run say; None if it was never trained."""
    run = RunDirectory(profile.run_path)
    records = run.read_journal("metrics")
    if not records:
        return None
    try:
        steps = tuple(int(record["step"]) for record in records)
        shares = tuple(float(record["open_share"]) for record in records)
        stages = tuple(_run_stage(record) for record in run.read_journal("stages"))
        opened = [int(record["num_open"]) for record in records]
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{run.journal_path('metrics')} lacks {error}",
            hint="was it written by another version? remove it to plot the plan alone",
        ) from error
    per_step = profile.training.num_iterations
    plan = [planned.num_open(min((s - 1) // per_step, planned.num_steps - 1)) for s in steps]
    same_inputs = shares and abs(opened[-1] / shares[-1] - planned.num_inputs) < 0.5
    return RunCurve(
        run=str(run.path),
        steps=steps,
        shares=shares,
        as_planned=plan == opened if same_inputs else None,
        stages=stages,
    )


def _run_stage(record: dict[str, Any]) -> RunStage:
    return RunStage(
        stage=int(record["stage"]),
        steps=int(record["steps"]),
        num_open=int(record["num_open"]),
        open_share=record.get("open_share"),
        reward=record.get("reward"),
        kl=record.get("kl"),
        zero_spread_share=record.get("zero_spread_share"),
    )
