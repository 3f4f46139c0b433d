"""`ccrl doctor`: what this machine can run, and a memory plan of the profile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ccrl_cli.cli.options import Invocation, command, new_app
from ccrl_cli.cli.output import format_table

if TYPE_CHECKING:
    from ccrl_cli.pipelines.machine.doctor import DoctorResult, TorchBuild
    from ccrl_cli.pipelines.machine.memory import ModelPlan

app = new_app()

Memory = Annotated[
    float | None,
    typer.Option(
        "--memory-gib",
        help="Plan for a GPU with so much memory instead of this machine's device.",
        min=0.1,
        show_default=False,
    ),
]


@command(app, "doctor")
def doctor(invocation: Invocation, memory_gib: Memory = None) -> None:
    """What this machine can run, and whether the profile fits its memory.

    Packages and their conflicts, GPU, free disk, backends and why or why not, and for each model
    of the profile the memory of generation and training, with the settings that would make it fit.
    """
    from ccrl_cli.pipelines.machine.doctor import doctor as run

    result = run(invocation.load().profile, memory_gib=memory_gib)
    for problem in result.problems:
        invocation.reporter.warn(problem)
    invocation.finish(result, text=_text(result), counts={"problems": len(result.problems)})


def _text(result: DoctorResult) -> str:
    parts = [_machine(result), _packages(result), _backends(result)]
    parts += [_plan(plan, result.budget_gib) for plan in result.plans]
    return "\n\n".join(parts)


def _machine(result: DoctorResult) -> str:
    gpus = [
        f"{gpu.name}, {gpu.total / 2**30:.1f} GiB ({gpu.free / 2**30:.1f} free)"
        + ("" if gpu.seen_by_torch else ", not seen by PyTorch")
        for gpu in result.gpus
    ]
    lines = [
        f"ccrl {result.ccrl}, Python {result.python}, {result.system}",
        f"GPU: {'; '.join(gpus) or 'none'}",
        _build(result.build),
        f"main memory: {result.memory_gib or '?'} GiB",
    ]
    lines += [f"free for {d.purpose}: {d.free_gib:.1f} GiB in {d.path}" for d in result.disks]
    return "\n".join(lines)


def _build(build: TorchBuild) -> str:
    line = f"PyTorch build: {build.installed or 'none'}"
    if build.installed == build.fitting:
        return f"{line}, the one for this machine ({build.reason})"
    kind = "a better one" if build.better else "that of the table"
    return f"{line}; {kind} is {build.fitting} ({build.reason})"


def _packages(result: DoctorResult) -> str:
    rows = [(p.name, p.version or "-", f'"ccrl[{p.extra}]"') for p in result.packages]
    return format_table(("package", "version", "comes with"), rows)


def _backends(result: DoctorResult) -> str:
    rows = [(b.name, "yes" if b.usable else "no", b.reason) for b in result.backends]
    table = format_table(("backend", "runs", "why"), rows)
    return f"{table}\nthis profile generates with {result.backend}"


def _plan(plan: ModelPlan, budget: float) -> str:
    if plan.parameters is None:
        return f"{plan.model}: no memory plan: {plan.source}"
    head = (
        f"{plan.model}: {plan.parameters / 1e9:.2f} billion weights ({plan.source}), "
        f"{plan.weights}; memory {budget:.1f} GiB"
    )
    formats = ", ".join(f"{name} {size:.1f}" for name, size in plan.weights_gib.items())
    widest = plan.widest_that_fits
    lines = [
        head,
        f"weights in GiB: {formats}",
        f"widest format that fits: {widest}" if widest else "no format fits this memory",
    ]
    if plan.plans:
        names = list(dict.fromkeys(name for p in plan.plans for name in p.parts_gib))
        rows = [(name, *(p.parts_gib.get(name, "-") for p in plan.plans)) for name in names]
        rows.append(("total", *(p.total_gib for p in plan.plans)))
        if any(p.purpose == "training" for p in plan.plans):
            lines.append("(of rollout and update, which take turns, the larger one counts)")
        lines += ["", format_table(("GiB", *(p.purpose for p in plan.plans)), rows)]
    lines += [_verdict(p.purpose, p.fits, p.changes) for p in plan.plans]
    return "\n".join(lines)


def _verdict(purpose: str, fits: bool, changes: tuple[str, ...]) -> str:
    if fits:
        return f"{purpose} fits"
    if not changes:
        return f"{purpose} does not fit, and no setting of these makes it fit"
    return f"{purpose} does not fit; it would with " + " ".join(f"--set {c}" for c in changes)
