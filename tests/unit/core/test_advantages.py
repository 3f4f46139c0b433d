"""One tolerance for equal rewards: in the gate, the telemetry and the advantages."""

from __future__ import annotations

import numpy as np
import pytest

from ccrl_cli.core.advantages import has_signal, reward_spread
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.telemetry import RolloutRow, make_groups, summarise

# Equal rewards as sums of parts, whose mean is not their value: 0.1 + 0.2 is not 0.3 in binary.
EQUAL = [[0.7] * 3, [1.1] * 6, [0.1] * 10, [0.1 + 0.2, 0.3, 0.3, 0.3], [1.2 * 0.9 + 0.2] * 7]


def rows(rewards, key="a"):
    return [
        RolloutRow(key, False, value, value, 1.0, 0.0, 0.0, 1, 1, "valid", 4, False)
        for value in rewards
    ]


@pytest.mark.parametrize("rewards", EQUAL)
def test_rounding_is_no_spread(rewards):
    assert reward_spread(rewards) == 0.0
    assert not has_signal(rewards)
    groups = make_groups(rows(rewards), len(rewards))
    assert groups[0].spread == 0.0
    assert summarise(rows(rewards), groups)["zero_spread_share"] == 1.0


def test_some_of_these_groups_have_rounding_noise():
    """Else the tests beside this one could not fail."""
    noisy = [g for g in EQUAL if np.mean([(v - sum(g) / len(g)) ** 2 for v in g]) > 0]
    assert len(noisy) >= 3


@pytest.mark.parametrize("rewards", EQUAL)
def test_the_gate_takes_no_rounding_for_signal(rewards):
    schedule = Schedule(2, 400, 1, Pacing("constant"))
    sampler = CurriculumSampler(("a", "b"), schedule, np.random.default_rng(0), gate=True)
    for _ in range(2):
        (group,) = make_groups(rows(rewards), len(rewards))
        sampler.observe("a", group.spread)
    drawn = [sampler.draw(index) for index in range(400)]
    first_of_pass = [drawn[index] for index in range(0, 400, 2)]
    assert first_of_pass.count("b") > 150, "the flat input waits for the other one in most passes"


def test_a_real_difference_is_a_signal():
    # Population standard deviation of 0, 1: a half.
    assert reward_spread([0.0, 1.0]) == pytest.approx(0.5)
    assert has_signal([0.5, 0.5, 0.5 + 1e-6])
    assert reward_spread([]) == 0.0
