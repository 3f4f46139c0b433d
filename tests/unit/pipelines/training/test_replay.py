"""Replay: which rows of a step are source inputs, and which ones."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.curriculum import CurriculumSampler, Schedule
from ccrl_cli.core.pacing import Pacing
from ccrl_cli.core.replay import ReplayDraws, place_in_step, replay_prompts
from ccrl_cli.pipelines.training.task import source_inputs
from ccrl_cli.reporting import NullReporter


@pytest.mark.parametrize(
    ("share", "prompts", "count"),
    [(0.0, 8, 0), (0.1, 8, 1), (0.2, 8, 2), (0.01, 8, 1), (0.2, 2, 1), (0.2, 32, 6), (0.1, 32, 3)],
)
def test_whole_prompts(share, prompts, count):
    assert replay_prompts(share, prompts) == count


def test_a_step_of_one_prompt_has_no_room():
    assert replay_prompts(0.0, 1) == 0
    with pytest.raises(ValueError, match="no room"):
        replay_prompts(0.1, 1)


@given(st.integers(1, 12), st.integers(1, 20), st.data())
def test_rows_are_numbered_without_gaps_within_their_kind(size, steps, data):
    replayed = data.draw(st.integers(0, size - 1))
    places = [place_in_step(row, size, replayed) for row in range(size * steps)]
    own = [number for is_replay, number in places if not is_replay]
    replays = [number for is_replay, number in places if is_replay]
    assert own == list(range(steps * (size - replayed)))
    assert replays == list(range(steps * replayed))


@given(st.integers(1, 9), st.integers(0, 2**40), st.integers(1, 4))
def test_every_pass_has_each_input_once(count, seed, passes):
    ids = [f"s{i}" for i in range(count)]
    draws = ReplayDraws(ids, seed)
    drawn = [draws.draw(i) for i in range(count * passes)]
    for number in range(passes):
        assert sorted(drawn[number * count : (number + 1) * count]) == ids
    # Any draw can be asked for first: nothing is remembered that matters.
    assert ReplayDraws(ids, seed).draw(count * passes - 1) == drawn[-1]


def test_no_inputs_no_draws():
    with pytest.raises(IndexError):
        ReplayDraws([], 0).draw(0)


def sampler(rates, steps=400, seed=0):
    schedule = Schedule(len(rates), steps, 2, Pacing("constant"))
    rng = np.random.Generator(np.random.Philox(seed))
    return CurriculumSampler(tuple(rates), schedule, rng, rates=rates)


def test_inputs_are_drawn_in_proportion_to_their_rates():
    rates = {"a": 1.0, "b": 0.5, "c": 0.25, "d": 0.0, "e": 1.0}
    draws = sampler(rates)
    counts = Counter(draws.draw(i) for i in range(len(draws)))
    assert counts["d"] == 0
    assert counts["b"] / counts["a"] == pytest.approx(0.5, abs=0.1)
    assert counts["c"] / counts["a"] == pytest.approx(0.25, abs=0.1)


def test_a_sampler_with_rates_goes_on_from_its_state():
    rates = {"a": 1.0, "b": 0.3, "c": 0.7, "d": 0.1}
    whole, first = sampler(rates), sampler(rates)
    expected = [whole.draw(i) for i in range(60)]
    assert [first.draw(i) for i in range(31)] == expected[:31]
    second = sampler(rates, seed=9)
    second.load_state_dict(first.state_dict())
    assert [second.draw(i) for i in range(60)] == expected


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=6))
def test_any_rates_give_every_draw(rates):
    if not max(rates.values()):
        with pytest.raises(ValueError, match="no input has a rate"):
            sampler(rates, steps=6)
        return
    draws = sampler(rates, steps=6)
    drawn = [draws.draw(i) for i in range(len(draws))]
    assert all(rates[key] > 0 for key in drawn)


class Texts:
    """Makes the text of a sentence its input."""

    @staticmethod
    def source(_, examples):
        return {example.id: example.text for example in examples}


@pytest.mark.parametrize(("split", "word"), [("train", "old"), ("dev", "new")])
def test_what_is_replayed_and_probed_comes_from_the_named_split(tmp_path, split, word):
    for name, told in (("train", "old"), ("dev", "new"), ("test", "held")):
        rows = [
            json.dumps(
                {"text": f"{told} Cy{n} left .", "entities": [{"text": f"Cy{n}", "type": "p"}]}
            )
            for n in range(6)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    profile = load_profile("quickstart", [
        "data.source.name=", f"data.source.path={tmp_path.as_posix()}", "data.type_names={}",
        "training.probe_source_size=2", f"training.replay_split={split}",
    ]).profile  # fmt: skip
    replay, probe = source_inputs(profile, Texts(), 3, NullReporter())
    assert {text.split()[0] for text in [*replay.values(), *probe]} == {word}
    assert (len(replay), len(probe)) == (3, 2)
    assert not set(replay.values()) & set(probe)
