"""`ccrl baselines`: list, run, run-all, compare."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ccrl_cli.cli.options import Invocation, command, new_group, setting
from ccrl_cli.cli.output import duration, format_table

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.pipelines.comparison.baselines import ArmRun
    from ccrl_cli.pipelines.comparison.compare import CompareResult

app = new_group("Training recipes compared at equal update budgets, over seeds.")

SEEDS = setting("baselines.seeds", int, "Runs of each arm: run.seed, run.seed + 1, ...")
STEPS = setting("training.max_steps", int, "Optimiser steps of every trained arm.")
PACING = setting("curriculum.pacing", str, "Pacing of the arm curriculum and its controls.")
ArmName = Annotated[str, typer.Argument(metavar="ARM", help="One of `ccrl baselines list`.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Default: run.seed.", show_default=False)
]
Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arms",
        help="Arms to run, may repeat or be joined by commas; default: baselines.arms.",
        show_default=False,
    ),
]
Parallel = Annotated[
    int, typer.Option("--parallel", min=1, help="Processes at a time, for GPUs with room.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Train arms again that have other settings.")
]
Csv = Annotated[
    Path | None, typer.Option("--csv", help="Also write the arms as CSV.", show_default=False)
]
Folders = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FOLDER",
        help="Folders of arms, such as runs/NAME/arms, to be pooled: other seeds, other warm-ups, "
        "other target domains. None: the profile's.",
        show_default=False,
    ),
]


@command(app, "list")
def show_arms(invocation: Invocation) -> None:
    """Say what each arm does, and which of them the profile runs."""
    from ccrl_cli.pipelines.comparison.arms import RECIPES, chosen_arms

    profile = invocation.load().profile
    chosen = chosen_arms(profile)
    rows = [
        {"arm": r.name, "kind": r.kind, "runs": r.name in chosen, "does": r.description}
        for r in RECIPES.values()
    ]
    invocation.finish(
        {"arms": rows, "seeds": profile.baselines.seeds},
        text=format_table(list(rows[0]), [list(row.values()) for row in rows])
        + f"\n{len(chosen)} arms of this profile, {profile.baselines.seeds} seed(s)",
        counts={"arms": len(rows), "chosen": len(chosen)},
    )


@command(app, "run", STEPS, PACING)
def run(
    invocation: Invocation,
    arm: ArmName,
    seed: Seed = None,
    overwrite: Overwrite = False,
) -> None:
    """Train and score one arm with one seed; what is done is not done again."""
    from ccrl_cli.pipelines.comparison.arms import find_recipe

    find_recipe(arm)  # a wrong name is said before anything heavy is imported
    from ccrl_cli.pipelines.comparison.baselines import run_one

    loaded = invocation.load()
    result = run_one(
        loaded.profile,
        arm,
        loaded.profile.run.seed if seed is None else seed,
        overwrite=overwrite,
        reporter=invocation.reporter,
        origins=loaded.origins,
    )
    invocation.finish(
        result,
        status="nothing" if result.status == "skipped" else "done",
        run_dir=result.run_dir,
    )


@command(app, "worker", hidden=True)
def worker(invocation: Invocation, overwrite: Overwrite = False) -> None:
    """Work off arms that `run-all --parallel` sends; not for calling by hand."""
    from ccrl_cli.pipelines.comparison.workers import serve

    served = serve(invocation.load().profile, overwrite=overwrite, reporter=invocation.reporter)
    invocation.finish({"served": served}, text="")


@command(app, "run-all", SEEDS, STEPS, PACING)
def run_all(
    invocation: Invocation, arms: Arms = None, parallel: Parallel = 1, overwrite: Overwrite = False
) -> None:
    """Run every arm over every seed, compare them, and write the page; call again to go on."""
    from ccrl_cli.cli.arm_tables import compare_lines

    loaded = invocation.load()
    profile = loaded.profile
    names = _names(arms)
    if parallel > 1:
        from ccrl_cli.pipelines.comparison.workers import run_parallel

        runs = run_parallel(
            profile, parallel, arms=names, overwrite=overwrite, reporter=invocation.reporter
        )
    else:
        from ccrl_cli.pipelines.comparison.baselines import run_all as run_queue

        runs = run_queue(
            profile,
            arms=names,
            overwrite=overwrite,
            reporter=invocation.reporter,
            origins=loaded.origins,
        )
    result = _compare(invocation, profile, names)
    page = _page(invocation, profile, result)
    failed = [item for item in runs if item.status == "failed"]
    lines = [*compare_lines(result), "", _run_table(runs)]
    invocation.finish(
        {"runs": runs, "comparison": result, "page": page},
        text="\n".join([*lines, f"page: {page}"] if page else lines),
        counts={name: sum(r.status == name for r in runs) for name in _STATUS},
        status=_status(runs, failed),
        run_dir=profile.run_path,
    )


@command(app, "compare", SEEDS)
def compare(invocation: Invocation, folders: Folders = None, csv: Csv = None) -> None:
    """Compare finished arms: a table, tests over pairs of trainings, and a plain answer."""
    from ccrl_cli.cli.arm_tables import compare_csv, compare_lines, domains_lines

    if folders:
        from ccrl_cli.pipelines.comparison.compare import compare_folders

        over = compare_folders(folders, reporter=invocation.reporter)
        results, run_dir, text = over.domains, None, domains_lines(over)
    else:
        profile = invocation.load().profile
        results, run_dir = (_compare(invocation, profile),), profile.run_path
        text = compare_lines(results[0])
    if csv is not None:
        _write(csv, compare_csv(results))
        invocation.reporter.info(f"wrote {csv}")
    invocation.finish(
        over if folders else results[0],
        text="\n".join(text),
        counts={
            "arms": sum(len(result.rows) for result in results),
            "missing": sum(len(result.missing) for result in results),
        },
        run_dir=run_dir,
    )


_STATUS = ("done", "skipped", "failed")


def _status(runs: Sequence[ArmRun], failed: Sequence[ArmRun]) -> Any:
    if failed:
        return "partial"
    return "nothing" if all(item.status == "skipped" for item in runs) else "done"


def _names(arms: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of repeated or comma-joined values."""
    return tuple(name.strip() for value in arms or () for name in value.split(",") if name.strip())


def _compare(invocation: Invocation, profile: Profile, arms: Sequence[str] = ()) -> CompareResult:
    from ccrl_cli.pipelines.comparison.compare import compare as run_compare

    return run_compare(profile, arms=arms, reporter=invocation.reporter)


def _page(invocation: Invocation, profile: Profile, result: CompareResult) -> str | None:
    """Write the page of all arms; None, and a warning, where that is not possible."""
    from ccrl_cli.errors import PreconditionError
    from ccrl_cli.findings.comparisons import ComparedArms
    from ccrl_cli.pipelines.comparison.arm_runs import finished_arms
    from ccrl_cli.pipelines.comparison.arms import NAIVE, OURS, arms_path
    from ccrl_cli.pipelines.report import report

    folders = [item.run_dir for item in finished_arms([arms_path(profile)])]
    try:
        title = profile.report.title or f"{profile.run.name}: arms compared"
        place = arms_path(profile) / "report.html"
        tested = {OURS, NAIVE} <= {row.arm for row in result.rows}
        answer = ComparedArms(result.finding, result.comparisons) if tested else None
        return report(
            folders, output=place, title=title, compared=answer, reporter=invocation.reporter
        ).path
    except PreconditionError as error:
        invocation.reporter.warn(f"no page was written: {error.message}")
        return None


def _run_table(runs: Sequence[ArmRun]) -> str:
    rows = [
        [item.arm, item.seed, item.status, duration(item.seconds), item.message or item.run_dir]
        for item in runs
    ]
    return format_table(["arm", "seed", "status", "time", "where, or why not"], rows)


def _write(place: Path, text: str) -> None:
    from ccrl_cli.errors import PreconditionError
    from ccrl_cli.store.atomic import write_text

    try:
        write_text(place, text)
    except OSError as error:
        raise PreconditionError(
            f"{place} cannot be written: {error.strerror}", hint="choose another file"
        ) from error
