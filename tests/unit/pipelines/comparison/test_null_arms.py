"""Arms that are equally good, as runs with sentences: how often `compare` calls a winner.

Each training finds a mention with a chance of its own, which is what makes trainings differ; the
sentences are the same for all. The old rule, which added counts over seeds and resampled sentences
alone, is shown beside.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ccrl_cli.core.statistics import paired_bootstrap
from ccrl_cli.pipelines.comparison.arm_runs import FinishedArm
from ccrl_cli.pipelines.comparison.pairwise import compare_all

NUM_DRAWS = 300
SEEDS = 5
SENTENCES = 400
RESAMPLES = 200


def arm(name, seed, counts):
    right, wrong, missed = counts.sum(axis=0)
    f1 = float(2 * right / (2 * right + wrong + missed))
    same = {"target": "d", "source": "d"}
    return FinishedArm(
        arm=name, seed=seed, start="w", run_dir=Path(f"{name}-{seed}"), facts={}, decode="greedy",
        decodes={"target": "greedy", "source": "greedy"},
        counts={"target": counts, "source": counts}, data=same, digests=same, modes=same,
        f1={"target": f1, "source": f1}, greedy_f1={"target": f1, "source": f1}, forgetting=0.0,
        kl=None, seconds=0.0, drawn=(), reportable=True,
    )  # fmt: skip


def trained(rng, mentions, difficulty):
    """Return (S, 3) counts of a training whose own chance to be right is drawn around 0.5."""
    chance = np.clip(0.5 + rng.normal(0, 0.015) + difficulty, 0.02, 0.98)
    right = rng.binomial(mentions, chance)
    return np.stack([right, mentions - right, mentions - right], axis=1).astype(float)


def called_by_sentences(ours, other, rng):
    added = [np.sum([run.counts["target"] for run in side], axis=0) for side in (ours, other)]
    found = paired_bootstrap(*added, rng, num_resamples=RESAMPLES)
    ahead = sum(a.f1["target"] > b.f1["target"] for a, b in zip(ours, other, strict=True))
    low, high = found.difference.low, found.difference.high
    return (low > 0 and 2 * ahead > SEEDS) or (high < 0 and 2 * ahead < SEEDS)


def test_a_winner_is_called_as_seldom_as_is_said():
    rng = np.random.default_rng(0)
    new = old = 0
    for draw in range(NUM_DRAWS):
        mentions = rng.integers(1, 7, size=SENTENCES)
        difficulty = rng.normal(0, 0.2, size=SENTENCES)
        ours, other = (
            [arm(name, seed, trained(rng, mentions, difficulty)) for seed in range(SEEDS)]
            for name in ("curriculum", "naive-rl")
        )
        found = compare_all([*ours, *other], draw, num_resamples=RESAMPLES)
        target = next(c for c in found if c.domain == "target")
        new += target.trainings.p_value < 0.05
        old += called_by_sentences(ours, other, rng)
    print(f"{new / NUM_DRAWS:.1%} now, {old / NUM_DRAWS:.1%} before")
    assert new / NUM_DRAWS <= 0.07
    assert old / NUM_DRAWS >= 0.15
