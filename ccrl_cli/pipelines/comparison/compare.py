"""Compare: arms side by side, with intervals over sentences and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import (
    FloatArray,
    Spread,
    holm,
    paired_bootstrap,
    seed_spread,
)
from ccrl_cli.errors import IntegrityError
from ccrl_cli.pipelines.common.domains import Role
from ccrl_cli.pipelines.comparison.arm_runs import (
    FinishedArm,
    LabelJudge,
    check_comparable,
    finished_arms,
    read_arm,
)
from ccrl_cli.pipelines.comparison.arms import (
    NAIVE,
    OURS,
    RECIPES,
    arms_path,
    chosen_pairs,
    pair_name,
)
from ccrl_cli.pipelines.comparison.reference_scores import REFERENCE_SCORES, WARNING, ReferenceScore
from ccrl_cli.pipelines.comparison.verdicts import PairwiseComparison, verdict
from ccrl_cli.pipelines.evaluation.answering import ROLES
from ccrl_cli.store.runs import RunDirectory

if TYPE_CHECKING:
    from ccrl_cli.config.schema import Profile
    from ccrl_cli.reporting import Reporter

NUM_RESAMPLES = 5000
"""Resamples of each comparison: p-values down to 1/5001, small enough to outlive Holm."""


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm over its seeds; F1, forgetting and shares are fractions.

    Attributes:
        arm: the recipe.
        kind: ``baseline``, ``method``, ``control`` or ``bound``.
        seeds: seeds that are finished.
        target_f1: what it ends with in the target domain.
        source_f1: what it ends with in the source domain.
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
    target_f1: Spread
    source_f1: Spread
    forgetting: Spread
    kl: Spread | None
    label_f1: Spread | None
    updates: int
    planned_updates: int
    rollouts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CompareResult:
    """The comparison of a profile's arms.

    Attributes:
        headline: whether the curriculum won over naive-rl, lost, or whether it cannot be told.
        caveats: what must be said beside it.
        rows: one an arm.
        comparisons: every arm against naive-rl, and the curriculum against every other.
        reference_scores: scores of others.
        reference_warning: why they must not be compared with ours.
        missing: pairs of the profile that are not finished.
        modes: ``transductive`` or ``held-out``, by domain.
        num_sentences: scored, by domain.
        reportable: False if any number must not be reported.
    """

    headline: str
    caveats: tuple[str, ...]
    rows: tuple[ArmRow, ...]
    comparisons: tuple[PairwiseComparison, ...]
    reference_scores: tuple[ReferenceScore, ...]
    reference_warning: str
    missing: tuple[str, ...]
    modes: Mapping[str, str]
    num_sentences: Mapping[str, int]
    reportable: bool


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
    found = finished_arms(profile)
    judge = LabelJudge(profile, reporter)
    rows = tuple(
        _row([item for item in found if item.arm == arm], judge)
        for arm in RECIPES
        if any(item.arm == arm for item in found)
    )
    for row in rows:
        if row.updates < row.planned_updates:
            reporter.warn(
                f"{row.arm} stopped after {row.updates} of {row.planned_updates} updates: its row "
                "is not at the budget of the others"
            )
    comparisons = compare_all(found, profile.run.seed)
    done = {pair_name(item.arm, item.seed) for item in found}
    wanted = (pair_name(arm, seed) for arm, seed in chosen_pairs(profile, arms))
    missing = tuple(name for name in wanted if name not in done)
    if missing:
        reporter.warn(
            f"{len(missing)} runs are not finished in {arms_path(profile)}: {', '.join(missing)}"
        )
    text, caveats = answer(found, comparisons)
    return CompareResult(
        headline=text,
        caveats=caveats,
        rows=rows,
        comparisons=comparisons,
        reference_scores=REFERENCE_SCORES,
        reference_warning=WARNING,
        missing=missing,
        modes={role: found[0].modes[role] for role in ROLES},
        num_sentences=_sizes(found),
        reportable=_reportable(found),
    )


def answer(
    found: Sequence[FinishedArm], comparisons: Sequence[PairwiseComparison]
) -> tuple[str, tuple[str, ...]]:
    """Return whether the curriculum won over naive-rl, in a sentence, and its caveats.

    Args:
        found: finished pairs, all of them comparable.
        comparisons: what `compare_all` makes of them.
    """
    ours = [
        comparison
        for comparison in comparisons
        if (comparison.first, comparison.second) == (OURS, NAIVE)
    ]
    mode = found[0].modes["target"]
    return verdict(ours, _sizes(found), reportable=_reportable(found), mode=mode)


def answer_of(folders: Sequence[Path]) -> tuple[str, tuple[str, ...]] | None:
    """Return the answer for the arms among some run directories, and its caveats.

    Returns:
        None where curriculum and naive-rl are not both among them, or cannot be compared: scores or
        predictions are missing, other sentences were scored, or the budgets differ.
    """
    try:
        found = [arm for path in folders if (arm := read_arm(RunDirectory(path))) is not None]
        if not {OURS, NAIVE} <= {arm.arm for arm in found}:
            return None
        check_comparable(found)
    except IntegrityError:
        return None
    return answer(found, compare_all(found, min(arm.seed for arm in found)))


def _sizes(found: Sequence[FinishedArm]) -> dict[str, int]:
    return {role: len(found[0].counts[role]) for role in ROLES}


def _reportable(found: Sequence[FinishedArm]) -> bool:
    return all(item.reportable for item in found)


def _row(runs: Sequence[FinishedArm], judge: LabelJudge) -> ArmRow:
    kl = [item.kl for item in runs if item.kl is not None]
    labels = [f1 for item in runs if (f1 := judge.f1(item)) is not None]
    return ArmRow(
        arm=runs[0].arm,
        kind=RECIPES[runs[0].arm].kind,
        seeds=tuple(item.seed for item in runs),
        target_f1=seed_spread([item.f1["target"] for item in runs]),
        source_f1=seed_spread([item.f1["source"] for item in runs]),
        forgetting=seed_spread([item.forgetting for item in runs]),
        kl=seed_spread(kl) if kl else None,
        label_f1=seed_spread(labels) if labels else None,
        updates=min(int(item.facts["updates"]) for item in runs),
        planned_updates=int(runs[0].facts["planned_updates"]),
        rollouts=min(int(item.facts["rollouts"]) for item in runs),
        seconds=round(sum(item.seconds for item in runs) / len(runs), 1),
    )


def compared_names(arms: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return who is compared with whom: the curriculum with all, then all others with naive-rl."""
    ours = ((OURS, other) for other in arms if OURS in arms and other != OURS)
    naive = ((arm, NAIVE) for arm in arms if NAIVE in arms and arm not in (OURS, NAIVE))
    return tuple(chain(ours, naive))


def compare_all(found: Sequence[FinishedArm], seed: int) -> tuple[PairwiseComparison, ...]:
    """Return every comparison in both domains, p-values corrected over all of them.

    Args:
        found: finished pairs.
        seed: run seed, from which each comparison's resamples are derived.
    """
    arms = list(dict.fromkeys(item.arm for item in found))
    by_arm = {arm: {item.seed: item for item in found if item.arm == arm} for arm in arms}
    plain = []
    for role in ROLES:
        for first, second in compared_names(arms):
            a, b = by_arm[first], by_arm[second]
            seeds = common_seeds(first, a, second, b)
            if seeds:
                rng = np.random.default_rng(derive_seed(seed, "compare", role, first, second))
                plain.append(_pairwise(role, (first, second), seeds, (a, b), rng))
    corrected = holm([comparison.p_value for comparison in plain])
    return tuple(
        replace(comparison, p_holm=p) for comparison, p in zip(plain, corrected, strict=True)
    )


def common_seeds(
    first: str, a: Mapping[int, FinishedArm], second: str, b: Mapping[int, FinishedArm]
) -> tuple[int, ...]:
    """Return the seeds that both arms have; an arm without seeds of its own has the other's."""
    if first == "zero-shot":
        return tuple(sorted(b))
    if second == "zero-shot":
        return tuple(sorted(a))
    return tuple(sorted(a.keys() & b.keys()))


def _of_seed(runs: Mapping[int, FinishedArm], seed: int) -> FinishedArm:
    """Return the run of a seed; zero-shot's one run stands for every seed."""
    return runs[seed] if seed in runs else next(iter(runs.values()))


def _pairwise(
    role: Role,
    names: tuple[str, str],
    seeds: Sequence[int],
    runs: tuple[Mapping[int, FinishedArm], Mapping[int, FinishedArm]],
    rng: np.random.Generator,
) -> PairwiseComparison:
    a, b = ([_of_seed(side, seed) for seed in seeds] for side in runs)
    result = paired_bootstrap(_added(a, role), _added(b, role), rng, num_resamples=NUM_RESAMPLES)
    ahead = sum(x.f1[role] > y.f1[role] for x, y in zip(a, b, strict=True))
    return PairwiseComparison(
        role, *names, tuple(seeds), result.difference, result.p_value, result.p_value, ahead
    )


def _added(runs: Sequence[FinishedArm], role: Role) -> FloatArray:
    """Return (S, 3) counts by sentence, added over seeds."""
    return np.asarray(np.sum([item.counts[role] for item in runs], axis=0), dtype=np.float64)
