"""Order, sampler and weights over any confidences."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.balance import balanced_ranks
from ccrl_cli.core.curriculum import (
    ORDERS,
    CurriculumSampler,
    Schedule,
    order_inputs,
    stages,
)
from ccrl_cli.core.pacing import PACINGS, Pacing

CONFIDENCES = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    min_size=1,
    max_size=20,
)


@st.composite
def schedules(draw, num_inputs=None):
    return Schedule(
        num_inputs=num_inputs or draw(st.integers(1, 20)),
        num_steps=draw(st.integers(1, 12)),
        prompts_per_step=draw(st.integers(1, 6)),
        pacing=Pacing(
            draw(st.sampled_from(PACINGS)), draw(st.floats(0.01, 1)), shares=(0.2, 0.5, 1.0)
        ),
    )


def make(schedule, seed=0, gate=False, order=None):
    ids = order or [f"{number:02d}" for number in range(schedule.num_inputs)]
    return CurriculumSampler(ids, schedule, np.random.default_rng(seed), gate=gate)


@given(CONFIDENCES, st.sampled_from(ORDERS), st.floats(0, 1))
def test_an_order_holds_every_input_above_the_threshold_once(confidence, order, threshold):
    rng = np.random.default_rng(0)
    found = order_inputs(confidence, order, threshold=threshold, rng=rng)
    assert sorted(found) == sorted(k for k, v in confidence.items() if v >= threshold)
    values = [confidence[key] for key in found]
    if order == "confidence":
        assert values == sorted(values, reverse=True)
    if order == "anti":
        assert values == sorted(values)


@given(CONFIDENCES, st.randoms(use_true_random=False))
def test_an_order_does_not_depend_on_the_order_of_the_data(confidence, random):
    shuffled = dict(random.sample(list(confidence.items()), len(confidence)))
    for order in ORDERS:
        one = order_inputs(confidence, order, rng=np.random.default_rng(1))
        assert one == order_inputs(shuffled, order, rng=np.random.default_rng(1))


LABELS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 8)), max_size=4),
    min_size=1,
)


@given(LABELS, st.sampled_from("xyz"))
def test_ranks_of_a_type_know_its_order_and_no_scale(labels, kind):
    sure = dict.fromkeys(labels, 0.5)
    ranks = balanced_ranks(labels, sure)
    assert all(0 < rank < 1 for rank in ranks.values())
    scaled = {
        key: [(k, v / 2 if k == kind else v) for k, v in pairs] for key, pairs in labels.items()
    }
    assert balanced_ranks(scaled, sure) == pytest.approx(ranks)


@given(schedules())
def test_stages_cut_the_run_into_growing_open_sets(schedule):
    parts = list(stages(schedule))
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].first_step == 0
    assert parts[-1].end_step == schedule.num_steps
    assert all(a.end_step == b.first_step for a, b in pairwise(parts))
    assert all(a.num_open < b.num_open for a, b in pairwise(parts))
    assert parts[-1].num_open == schedule.num_inputs


@given(schedules(), st.integers(0, 2**32), st.booleans(), st.data())
def test_a_saved_state_gives_the_same_next_draws(schedule, seed, gate, data):
    straight, first = make(schedule, seed, gate), make(schedule, seed, gate)
    total = len(straight)
    cut = data.draw(st.integers(0, total))
    spreads = data.draw(st.lists(st.sampled_from([0.0, 0.3]), min_size=total, max_size=total))

    def go(sampler, begin, end):
        drawn = []
        for index in range(begin, end):
            drawn.append(sampler.draw(index))
            sampler.observe(drawn[-1], spreads[index])
        return drawn

    expected = go(straight, 0, total)
    assert go(first, 0, cut) == expected[:cut]
    resumed = make(schedule, seed + 1, gate)
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [resumed.draw(index) for index in range(cut)] == expected[:cut]
    assert go(resumed, cut, total) == expected[cut:]


@given(schedules(), st.integers(0, 2**32), st.booleans())
def test_draws_stay_inside_what_is_open_and_a_step_repeats_only_if_it_must(schedule, seed, gate):
    sampler = make(schedule, seed, gate)
    for step in range(schedule.num_steps):
        first = step * schedule.prompts_per_step
        drawn = [sampler.draw(first + i) for i in range(schedule.prompts_per_step)]
        count = schedule.num_open(step)
        assert all(int(key) < count for key in drawn)
        if count >= schedule.prompts_per_step:
            assert len(set(drawn)) == len(drawn)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_constant_pacing_equals_no_curriculum(num_inputs, num_steps, per_step, seed):
    """All inputs are open from the first step, in passes without replacement, in any order."""
    schedule = Schedule(num_inputs, num_steps, per_step, Pacing("constant"))
    assert {schedule.num_open(step) for step in range(num_steps)} == {num_inputs}
    assert len(list(stages(schedule))) == 1
    sampler = make(schedule, seed)
    drawn = [sampler.draw(index) for index in range(len(sampler))]
    if not num_inputs % per_step:  # else a step may take an input out of its pass
        for first in range(0, len(drawn) - num_inputs + 1, num_inputs):
            assert len(set(drawn[first : first + num_inputs])) == num_inputs
    if num_inputs >= per_step:
        counts = Counter(drawn)
        assert max(counts.values()) - min(counts[key] for key in sampler._order) <= 2
    # Confidence plays no part: draws are places in the order, whatever stands there.
    ids = [f"{number:02d}" for number in range(num_inputs)][::-1]
    other = make(schedule, seed, order=ids)
    assert [ids.index(other.draw(i)) for i in range(len(other))] == [int(key) for key in drawn]
