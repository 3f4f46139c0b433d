"""Order, stages and draws of the curriculum."""

import json

import numpy as np
import pytest

from ccrl_cli.core.curriculum import (
    CurriculumSampler,
    Schedule,
    Stage,
    order_inputs,
    stages,
)
from ccrl_cli.core.pacing import Pacing

IDS = [f"{i:02d}" for i in range(10)]


def make_sampler(seed=0, gate=False, pacing="step", **changes):
    values = {"num_inputs": 10, "num_steps": 6, "prompts_per_step": 3}
    schedule = Schedule(pacing=Pacing(pacing, shares=(0.2, 0.5, 1.0)), **(values | changes))
    return CurriculumSampler(IDS, schedule, np.random.default_rng(seed), gate=gate)


def test_surest_first_and_ties_by_id():
    confidence = {"b": 0.5, "a": 0.5, "c": 0.9, "d": 0.1}
    assert order_inputs(confidence, "confidence") == ("c", "a", "b", "d")
    assert order_inputs(confidence, "anti") == ("d", "a", "b", "c")
    assert order_inputs(confidence, "confidence", threshold=0.5) == ("c", "a", "b")


def test_random_order_is_a_seeded_permutation():
    confidence = dict.fromkeys(IDS, 0.5)
    first = order_inputs(confidence, "random", rng=np.random.default_rng(3))
    assert first == order_inputs(confidence, "random", rng=np.random.default_rng(3))
    assert sorted(first) == IDS
    assert list(first) != IDS
    with pytest.raises(ValueError, match="generator"):
        order_inputs(confidence, "random")


def test_step_stages_have_equal_lengths():
    # 6 steps, 3 shares of 10 inputs: 2 steps each over 2, 5 and 10 inputs.
    assert list(stages(make_sampler().schedule)) == [
        Stage(1, 0, 2, 2),
        Stage(2, 2, 4, 5),
        Stage(3, 4, 6, 10),
    ]


def test_draws_stay_inside_the_open_set_and_cover_it():
    sampler = make_sampler(num_steps=30)
    for index in range(len(sampler)):
        count = sampler.schedule.num_open(index // 3)
        assert sampler.draw(index) in IDS[:count]
    late = {sampler.draw(i) for i in range(60, 90)}
    assert late == set(IDS)


def test_a_pass_draws_each_input_once():
    sampler = make_sampler(pacing="constant", num_steps=10, prompts_per_step=5)
    for first in range(0, 50, 10):
        assert sorted(sampler.draw(i) for i in range(first, first + 10)) == IDS


def test_a_step_holds_distinct_inputs_where_enough_are_open():
    sampler = make_sampler(num_steps=60, prompts_per_step=4)
    for step in range(60):
        if sampler.schedule.num_open(step) >= 4:
            drawn = [sampler.draw(4 * step + i) for i in range(4)]
            assert len(set(drawn)) == 4


def test_saved_state_gives_the_same_next_draws():
    straight = make_sampler(gate=True)
    expected = []
    for index in range(18):
        expected.append(straight.draw(index))
        straight.observe(expected[-1], 0.0 if index % 2 else 0.3)
    first = make_sampler(gate=True)
    for index in range(7):
        first.observe(first.draw(index), 0.0 if index % 2 else 0.3)
    state = json.loads(json.dumps(first.state_dict()))
    resumed = make_sampler(seed=99, gate=True)
    resumed.load_state_dict(state)
    assert [resumed.draw(i) for i in range(7)] == expected[:7]
    for index in range(7, 18):
        assert resumed.draw(index) == expected[index]
        resumed.observe(expected[index], 0.0 if index % 2 else 0.3)


def test_a_state_of_other_inputs_is_refused():
    state = make_sampler().state_dict()
    other = CurriculumSampler(IDS[::-1], make_sampler().schedule, np.random.default_rng(0))
    with pytest.raises(ValueError, match="another order"):
        other.load_state_dict(state)


def test_the_gate_draws_flat_inputs_late_in_a_pass():
    places = []
    for seed in range(200):
        sampler = make_sampler(seed, gate=True, pacing="constant", num_steps=4, prompts_per_step=5)
        for _ in range(2):
            sampler.observe("00", 0.0)
        places.append([sampler.draw(i) for i in range(10)].index("00"))
    # Without the gate the mean place is 4.5; drawn at a fifth of the rate it is about 7.4.
    assert np.mean(places) > 6
