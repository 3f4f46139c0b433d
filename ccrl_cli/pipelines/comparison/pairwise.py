"""Arms against each other, with a pair of trainings as the unit; and over domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from ccrl_cli.core.seeds import derive_seed
from ccrl_cli.core.statistics import (
    FloatArray,
    holm,
    mean_micro_f1,
    paired_bootstrap,
    paired_trainings,
    sign_flip,
)
from ccrl_cli.errors import IntegrityError
from ccrl_cli.findings.comparisons import DomainComparison, PairwiseComparison, TrainingPair
from ccrl_cli.pipelines.common.domains import Role
from ccrl_cli.pipelines.comparison.arm_runs import FinishedArm
from ccrl_cli.pipelines.comparison.arms import NAIVE, OURS, RECIPES
from ccrl_cli.pipelines.evaluation.answering import ROLES

NUM_RESAMPLES = 2000
"""Resamples of each comparison, for the interval and the standard error over sentences."""

Runs = Mapping[TrainingPair, FinishedArm]


def compared_names(arms: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return who is compared with whom: the curriculum with all, then all others with naive-rl."""
    ours = ((OURS, other) for other in arms if OURS in arms and other != OURS)
    naive = ((arm, NAIVE) for arm in arms if NAIVE in arms and arm not in (OURS, NAIVE))
    return tuple(chain(ours, naive))


def compare_all(
    found: Sequence[FinishedArm], seed: int, *, num_resamples: int = NUM_RESAMPLES
) -> tuple[PairwiseComparison, ...]:
    """Return every comparison in both domains, p-values corrected over all that were tested.

    Args:
        found: finished pairs of one target domain.
        seed: run seed, from which each comparison's resamples are derived.
        num_resamples: R of the bootstrap over sentences.

    Raises:
        IntegrityError: an arm has two runs of one seed from one start.
    """
    by_arm = runs_by_arm(found)
    plain = []
    for role in ROLES:
        for first, second in compared_names(list(by_arm)):
            pairs = common_pairs(by_arm[first], by_arm[second])
            if pairs and _alike(role, by_arm[first], by_arm[second]):
                rng = np.random.default_rng(derive_seed(seed, "compare", role, first, second))
                runs = [[_of_pair(by_arm[arm], pair) for pair in pairs] for arm in (first, second)]
                plain.append(_pairwise(role, pairs, runs, rng, num_resamples))
    tested = [c.trainings.p_value for c in plain if c.trainings.p_value is not None]
    corrected = iter(holm(tested))
    return tuple(
        c if c.trainings.p_value is None else replace(c, p_holm=next(corrected)) for c in plain
    )


def compare_domains(
    groups: Sequence[tuple[str, Sequence[PairwiseComparison]]],
) -> tuple[DomainComparison, ...]:
    """Return every comparison over several target domains that two of them have at least.

    Args:
        groups: name of the data and comparisons of each target domain.
    """
    rows: dict[tuple[str, str, str], list[tuple[str, PairwiseComparison]]] = {}
    for name, comparisons in groups:
        for one in comparisons:
            rows.setdefault((one.domain, one.first, one.second), []).append((name, one))
    return tuple(
        DomainComparison(
            *(domain, items[0][1].decode, first, second),
            targets=tuple(name for name, _ in items),
            domains=sign_flip([one.trainings.mean for _, one in items]),
        )
        for (domain, first, second), items in rows.items()
        if len(items) > 1
    )


def runs_by_arm(found: Sequence[FinishedArm]) -> dict[str, dict[TrainingPair, FinishedArm]]:
    """Return the runs of each arm by what a pair of trainings shares.

    Raises:
        IntegrityError: an arm has two runs of one seed from one start.
    """
    by_arm: dict[str, dict[TrainingPair, FinishedArm]] = {}
    for item in found:
        runs = by_arm.setdefault(item.arm, {})
        pair = TrainingPair(item.seed, item.start)
        if pair in runs:
            raise IntegrityError(
                f"{runs[pair].run_dir} and {item.run_dir} are the same pair: {item.arm}, seed "
                f"{item.seed}, from one start",
                hint="compare one of them, or train with other seeds: --set run.seed=N",
            )
        runs[pair] = item
    return by_arm


def common_pairs(a: Runs, b: Runs) -> tuple[TrainingPair, ...]:
    """Return the pairs that both arms have.

    An arm without training that ran once for a start stands for every seed of that start.
    """
    pairs = a.keys() & b.keys()
    for these, others in ((a, b), (b, a)):
        pairs |= {pair for pair in others if _stands_in(these, pair.start) is not None}
    return tuple(sorted(pairs, key=lambda pair: (pair.start, pair.seed)))


def _alike(role: Role, a: Runs, b: Runs) -> bool:
    """Return whether two arms may be compared in a domain.

    In the target an arm that is a way of decoding is what training must add to. In the source it
    would be held against answers that are decoded otherwise.
    """
    one, other = next(iter(a.values())), next(iter(b.values()))
    return role == "target" or one.decodes[role] == other.decodes[role]


def _stands_in(runs: Runs, start: str) -> FinishedArm | None:
    """Return the one run of an arm without training that stands for all seeds of a start."""
    mine = [run for pair, run in runs.items() if pair.start == start]
    return mine[0] if len(mine) == 1 and not RECIPES[mine[0].arm].trained else None


def _of_pair(runs: Runs, pair: TrainingPair) -> FinishedArm:
    found = runs.get(pair) or _stands_in(runs, pair.start)
    assert found is not None
    return found


def _pairwise(
    role: Role,
    pairs: tuple[TrainingPair, ...],
    runs: Sequence[Sequence[FinishedArm]],
    rng: np.random.Generator,
    num_resamples: int,
) -> PairwiseComparison:
    a, b = runs
    sentences = paired_bootstrap(
        _beside(a, role),
        _beside(b, role),
        rng,
        statistic=mean_micro_f1,
        num_resamples=num_resamples,
    )
    trainings = paired_trainings(
        [x.f1[role] - y.f1[role] for x, y in zip(a, b, strict=True)],
        sentences.standard_error,
        len(a[0].counts[role]),
    )
    return PairwiseComparison(
        *(role, a[0].decodes[role], a[0].arm, b[0].arm),
        pairs=pairs,
        trainings=trainings,
        sentences=sentences.difference,
        p_holm=None,
    )


def _beside(runs: Sequence[FinishedArm], role: Role) -> FloatArray:
    """Return (S, 3N) counts by sentence of N runs, beside each other."""
    return np.concatenate([item.counts[role] for item in runs], axis=1)
