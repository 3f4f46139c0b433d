"""What K samples agree on as one answer: votes, order, and samples that cannot be read."""

from __future__ import annotations

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.evaluation.answering import View, Way, _agreed, make_prediction
from ccrl_cli.records import Completion, Entity, Record

A, B = '{"text": "Apollo", "type": "mission"}', '{"text": "Saturn V", "type": "rocket"}'


@pytest.fixture(scope="module")
def view():
    return View.load(load_profile("quickstart").profile, "target")


def agreed(view, *texts, **confidence):
    given = [f"confidence.{key}={value}" for key, value in confidence.items()]
    profile = load_profile("quickstart", given).profile
    samples = tuple(Completion(text, -0.1, 5, "stop") for text in texts)
    return _agreed(profile, view, Record("i", "t", "before-majority", samples, {}))


def entities(view, answer):
    return make_prediction(view, view.split.examples[0], answer).parse.entities


def test_entities_with_half_of_the_votes_are_the_answer(view):
    answer = agreed(view, f"[{A}]", f"[{A}, {B}]", f"[{B}]", "[]")
    assert entities(view, answer) == (Entity("Apollo", "mission"), Entity("Saturn V", "rocket"))
    answer = agreed(view, f"[{A}]", f"[{A}]", f"[{B}]", "[]", positive=0.5)
    assert entities(view, answer) == (Entity("Apollo", "mission"),)


def test_a_whole_answer_wins_by_majority(view):
    answer = agreed(view, f"[{A}, {B}]", f"[{A}, {B}]", f"[{B}]", label="majority")
    assert entities(view, answer) == (Entity("Apollo", "mission"), Entity("Saturn V", "rocket"))


def test_unreadable_samples_vote_for_nothing_and_count(view):
    # Apollo has 1 of 4 votes.
    answer = agreed(view, f"[{A}]", "no", "no", "no")
    assert entities(view, answer) == ()
    assert make_prediction(view, view.split.examples[0], answer).parse.outcome == "valid"


def test_where_nothing_can_be_read_there_is_no_answer(view):
    answer = agreed(view, "no", "neither", "no", "no")
    assert make_prediction(view, view.split.examples[0], answer).parse.outcome == "invalid"


def test_an_answer_depends_on_how_it_was_drawn(view):
    profile = load_profile("quickstart").profile
    other = load_profile("quickstart", ["generation.temperature=0.5"]).profile
    seeded = load_profile("quickstart", ["run.seed=1"]).profile
    weights = Weights(profile.run_path, None, "r", None)
    votes, greedy = Way("before-majority", weights, 4), Way("before", weights)
    assert view.digest(profile, votes) not in (
        view.digest(other, votes), view.digest(seeded, votes), view.digest(profile, greedy),
        view.digest(profile, Way("before-majority", weights, 8)),
    )  # fmt: skip
    # A greedy answer is the same for every seed and temperature, so arms may share it.
    assert view.digest(profile, greedy) == view.digest(other, greedy) == view.digest(seeded, greedy)
