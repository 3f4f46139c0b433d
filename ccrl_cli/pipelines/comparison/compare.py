"""Compare: arms side by side, tested over pairs of trainings, in one target domain or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ccrl_cli.core.statistics import Spread, seed_spread
from ccrl_cli.errors import IntegrityError
from ccrl_cli.findings import Finding
from ccrl_cli.findings.comparisons import (
    ComparedArms,
    DomainComparison,
    PairwiseComparison,
    comparison_finding,
    domains_finding,
    untested_finding,
)
from ccrl_cli.pipelines.common.domains import Role
from ccrl_cli.pipelines.comparison.arm_runs import (
    FinishedArm,
    LabelJudge,
    check_comparable,
    finished_arms,
    profile_of,
    read_arm,
)
from ccrl_cli.pipelines.comparison.arms import (
    LABELLER,
    NAIVE,
    OURS,
    RECIPES,
    arms_path,
    chosen_pairs,
    pair_name,
)
from ccrl_cli.pipelines.comparison.pairwise import compare_all, compare_domains
from ccrl_cli.pipelines.comparison.reference_scores import REFERENCE_SCORES, WARNING, ReferenceScore
from ccrl_cli.pipelines.evaluation.answering import ROLES
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm over its seeds; F1, forgetting and shares are fractions.

    Attributes:
        arm: the recipe.
        kind: ``baseline``, ``method``, ``control`` or ``bound``.
        seeds: seeds that are finished.
        starts: how many starting weights they began with.
        target_f1: what it ends with in the target domain, decoded the profile's way.
        source_f1: what it ends with in the source domain; greedily, where it was not scored
            otherwise.
        target_greedy: target F1 of its greedy answers; None for an arm that is a way of decoding.
        source_greedy: the same of the source.
        forgetting: source F1 lost.
        kl: to the starting policy (nats a token); None where nothing was trained.
        label_f1: of the labels trained on against gold, each as often as it was drawn.
        updates: optimiser steps taken, the fewest of its seeds.
        planned_updates: the budget.
        rollouts: answers in the groups of training, label answers and replays included, the fewest
            of its seeds.
        seconds: of training, mean over seeds.
    """

    arm: str
    kind: str
    seeds: tuple[int, ...]
    starts: int
    target_f1: Spread
    source_f1: Spread
    target_greedy: Spread | None
    source_greedy: Spread | None
    forgetting: Spread
    kl: Spread | None
    label_f1: Spread | None
    updates: int
    planned_updates: int
    rollouts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CompareResult:
    """The comparison of arms in one target domain.

    Attributes:
        target: data set of the target.
        finding: whether the curriculum won over naive-rl, lost, or whether it cannot be told.
        decodes: how answers are decoded in every column that does not say greedy, by domain.
        rows: one an arm.
        comparisons: every arm against naive-rl, and the curriculum against every other.
        reference_scores: scores of others.
        reference_warning: why they must not be compared with ours.
        missing: pairs of the profile that are not finished.
        modes: ``transductive`` or ``held-out``, by domain.
        num_sentences: scored, by domain.
        reportable: False if any number must not be reported.
    """

    target: str
    finding: Finding
    decodes: Mapping[str, str]
    rows: tuple[ArmRow, ...]
    comparisons: tuple[PairwiseComparison, ...]
    reference_scores: tuple[ReferenceScore, ...]
    reference_warning: str
    missing: tuple[str, ...]
    modes: Mapping[str, str]
    num_sentences: Mapping[str, int]
    reportable: bool


@dataclass(frozen=True, slots=True)
class DomainsResult:
    """The comparison of arms over several target domains.

    Attributes:
        finding: whether the curriculum won over naive-rl over domains.
        comparisons: arms over domains.
        domains: the comparison in each.
    """

    finding: Finding
    comparisons: tuple[DomainComparison, ...]
    domains: tuple[CompareResult, ...]


def compare(profile: Profile, *, arms: Sequence[str] = (), reporter: Reporter) -> CompareResult:
    """Compare the finished arms of a profile, whichever there are.

    Args:
        profile: the profile that they were derived from.
        arms: arms that should be there; empty: those of ``baselines.arms``.
        reporter: told what is missing.

    Raises:
        PreconditionError: no arm is finished.
        IntegrityError: a run is damaged, or the arms are not comparable.
    """
    found = finished_arms([arms_path(profile)])
    done = {pair_name(item.arm, item.seed) for item in found}
    wanted = (pair_name(arm, seed) for arm, seed in chosen_pairs(profile, arms))
    missing = tuple(name for name in wanted if name not in done)
    if missing:
        reporter.warn(
            f"{len(missing)} runs are not finished in {arms_path(profile)}: {', '.join(missing)}"
        )
    judges = {arms_path(profile): LabelJudge(profile, reporter)}
    return _compare(found, judges, profile.run.seed, reporter, missing)


def compare_folders(folders: Sequence[Path], *, reporter: Reporter) -> DomainsResult:
    """Compare the finished arms of several folders: pooled by target domain, then over domains.

    Args:
        folders: such as ``runs/NAME/arms``; several of one target hold pairs of other seeds or
            other warm-ups.
        reporter: told of what is not at its budget.

    Raises:
        PreconditionError: no arm is finished.
        IntegrityError: a run is damaged, or arms of one target are not comparable.
    """
    groups: dict[str, list[FinishedArm]] = {}
    judges = {}
    for item in finished_arms(folders):
        groups.setdefault(item.digests["target"], []).append(item)
        if item.run_dir.parent not in judges:
            judges[item.run_dir.parent] = LabelJudge(profile_of(item), reporter)
    domains = tuple(
        _compare(found, judges, min(item.seed for item in found), reporter)
        for found in groups.values()
    )
    over = compare_domains([(result.target, result.comparisons) for result in domains])
    finding = domains_finding([c for c in over if (c.first, c.second) == (OURS, NAIVE)])
    return DomainsResult(domains[0].finding if len(domains) == 1 else finding, over, domains)


def _compare(
    found: Sequence[FinishedArm],
    judges: Mapping[Path, LabelJudge],
    seed: int,
    reporter: Reporter,
    missing: tuple[str, ...] = (),
) -> CompareResult:
    check_comparable(found)
    rows = tuple(
        _row([item for item in found if item.arm == arm], judges)
        for arm in RECIPES
        if any(item.arm == arm for item in found)
    )
    for row in rows:
        if row.updates < row.planned_updates:
            reporter.warn(
                f"{row.arm} stopped after {row.updates} of {row.planned_updates} updates: its row "
                "is not at the budget of the others"
            )
    comparisons = compare_all(found, seed)
    return CompareResult(
        target=found[0].data["target"],
        finding=answer(found, comparisons),
        decodes=_decodes(found),
        rows=rows,
        comparisons=comparisons,
        reference_scores=REFERENCE_SCORES,
        reference_warning=WARNING,
        missing=missing,
        modes={role: found[0].modes[role] for role in ROLES},
        num_sentences=_sizes(found),
        reportable=_reportable(found),
    )


def answer(found: Sequence[FinishedArm], comparisons: Sequence[PairwiseComparison]) -> Finding:
    """Return whether the curriculum won over naive-rl, and what it adds to the labeller.

    Args:
        found: finished pairs, all of them comparable.
        comparisons: what `compare_all` makes of them.
    """
    of = {(c.first, c.second, c.domain): c for c in comparisons}
    return comparison_finding(
        [of[OURS, NAIVE, role] for role in ROLES if (OURS, NAIVE, role) in of],
        _sizes(found),
        over_labeller=of.get((OURS, LABELLER, "target")),
        reportable=_reportable(found),
        mode=found[0].modes["target"],
    )


def compare_runs(folders: Sequence[Path]) -> ComparedArms | None:
    """Return the comparison of the arms among some run directories.

    Returns:
        None where curriculum and naive-rl are not both among them. Where they cannot be compared,
        a finding that says why.
    """
    runs = [RunDirectory(path) for path in folders]
    stated = {run.read_manifest().get("arm") for run in runs if run.manifest_path.exists()}
    if not {OURS, NAIVE} <= stated:
        return None
    try:
        found = [arm for run in runs if (arm := read_arm(run)) is not None]
        if not {OURS, NAIVE} <= {arm.arm for arm in found}:
            told = untested_finding("not both are finished runs of `ccrl baselines`")
            return ComparedArms(told)
        check_comparable(found)
        comparisons = compare_all(found, min(arm.seed for arm in found))
        return ComparedArms(answer(found, comparisons), comparisons)
    except IntegrityError as error:
        return ComparedArms(untested_finding(error.message))


def _sizes(found: Sequence[FinishedArm]) -> dict[str, int]:
    return {role: len(found[0].counts[role]) for role in ROLES}


def _reportable(found: Sequence[FinishedArm]) -> bool:
    return all(item.reportable for item in found)


def _row(runs: Sequence[FinishedArm], judges: Mapping[Path, LabelJudge]) -> ArmRow:
    kl = [item.kl for item in runs if item.kl is not None]
    labels = [f1 for r in runs if (f1 := judges[r.run_dir.parent].f1(r)) is not None]
    return ArmRow(
        arm=runs[0].arm,
        kind=RECIPES[runs[0].arm].kind,
        seeds=tuple(item.seed for item in runs),
        starts=len({item.start for item in runs}),
        target_f1=seed_spread([item.f1["target"] for item in runs]),
        source_f1=seed_spread([item.f1["source"] for item in runs]),
        target_greedy=_greedy(runs, "target"),
        source_greedy=_greedy(runs, "source"),
        forgetting=seed_spread([item.forgetting for item in runs]),
        kl=seed_spread(kl) if kl else None,
        label_f1=seed_spread(labels) if labels else None,
        updates=min(int(item.facts["updates"]) for item in runs),
        planned_updates=int(runs[0].facts["planned_updates"]),
        rollouts=min(int(item.facts["rollouts"]) for item in runs),
        seconds=round(sum(item.seconds for item in runs) / len(runs), 1),
    )


def _decodes(found: Sequence[FinishedArm]) -> dict[str, str]:
    """Return how the arms are decoded by domain; arms that are ways of decoding apart."""
    plain = [item for item in found if RECIPES[item.arm].decode is None] or found
    return {role: plain[0].decodes[role] for role in ROLES}


def _greedy(runs: Sequence[FinishedArm], role: Role) -> Spread | None:
    values = [item.greedy_f1[role] for item in runs if role in item.greedy_f1]
    return seed_spread(values) if values else None
