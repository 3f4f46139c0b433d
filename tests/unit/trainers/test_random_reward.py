"""The control of random rewards: noise that answers have no part in, the same after a resume."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.rewards import RewardWeights, make_target
from ccrl_cli.records import Entity, Example
from ccrl_cli.trainers.base import TrainInput, TrainTask
from lazily import lazy, needs

Sample = lazy("ccrl_cli.models.sampling", "Sample")
Rewards = lazy("ccrl_cli.trainers.rollouts", "Rewards")
Rollout = lazy("ccrl_cli.trainers.rollouts", "Rollout")

pytestmark = needs("torch")

RIGHT, WRONG = '[{"text": "NASA", "type": "agency"}]', "[]"


def rewards(noise_seed, weight=1.0):
    text = "NASA sent Juno"
    target = make_target(Aligner(Example(text, *tokenize(text))), [Entity("NASA", "agency")])
    task = TrainTask(
        {"a": TrainInput("a", "prompt", target, types={"agency": "agency"})},
        RewardWeights(overlap_weight=weight), noise_seed=noise_seed,
    )  # fmt: skip
    rollouts = SimpleNamespace(_loaded=SimpleNamespace(end_ids=[0]), drawn=[])
    return Rewards(task, rollouts)


def earned(noise_seed, step, answers=(RIGHT, WRONG), **options):
    found = rewards(noise_seed, **options)
    found._rollouts.drawn = [Rollout(Sample())] * len(answers)
    overlap, form, _ = found.functions()
    state = SimpleNamespace(global_step=step)
    given = {"completions": list(answers), "completion_ids": [[1, 0]] * len(answers)}
    return overlap(**given, input_id=["a"] * len(answers), trainer_state=state), form(), found


def test_without_noise_the_answer_decides():
    assert earned(None, 3)[0] == [1.0, 0.0]


def test_noise_does_not_depend_on_the_answer():
    assert earned(7, 3)[0] == earned(7, 3, (WRONG, RIGHT))[0]


def test_noise_is_the_same_at_the_same_step_and_another_at_the_next():
    assert earned(7, 3)[0] == earned(7, 3)[0]
    assert earned(7, 3)[0] != earned(7, 4)[0]
    assert earned(7, 3)[0] != earned(8, 3)[0]


def test_noise_is_uniform():
    values = np.array(earned(1, 0, [RIGHT, WRONG] * 2000)[0])
    # 4000 draws: the mean is within 4 standard errors, 4 * 0.289 / 63 = 0.018, of a half.
    assert abs(values.mean() - 0.5) < 0.018
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() < 1
    # Right and wrong answers earn alike: 2000 each, 4 * 0.289 * sqrt(2/2000) = 0.037.
    assert abs(values[::2].mean() - values[1::2].mean()) < 0.037


def test_format_still_counts_and_totals_are_logged():
    overlaps, forms, found = earned(7, 3, weight=0.5)
    assert forms == [1.0, 0.0]
    assert [row.overlap for row in found.rows] == overlaps
    expected = [0.5 * o + 0.2 * f for o, f in zip(overlaps, forms, strict=True)]
    assert [row.total for row in found.rows] == pytest.approx(expected)
