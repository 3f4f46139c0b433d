"""The sentence at the top of a page says what the intervals allow, and no more."""

from __future__ import annotations

import pytest

from ccrl_cli.findings import CaveatKind, points
from ccrl_cli.findings.runs import run_finding


def domain(before, after, low, high, *, mode="held-out", n=1000):
    def scores(f1):
        return {"f1": f1, "num_sentences": n}

    change = {"value": after - before, "low": low, "high": high}
    return {
        "data": "d",
        "mode": mode,
        "before": scores(before),
        "after": scores(after),
        "delta_f1": change,
    }


UP = domain(0.30, 0.40, 0.05, 0.15)
FLAT = domain(0.30, 0.31, -0.02, 0.04)
DOWN = domain(0.40, 0.30, -0.15, -0.05)
KEPT = domain(0.80, 0.795, -0.012, 0.004)
UNCLEAR = domain(0.80, 0.78, -0.06, 0.02)
LOST = domain(0.80, 0.70, -0.14, -0.06)
BETTER = domain(0.80, 0.85, 0.02, 0.08)


def say(target, source, **more):
    return run_finding(
        {"reportable": True, "domains": {"target": target, "source": source}, **more}
    )


@pytest.mark.parametrize(
    ("target", "source", "tone", "words"),
    [
        (UP, KEPT, "good", ["rose from 30.0 to 40.0 (+10.0 points", "source F1 was kept"]),
        (UP, BETTER, "good", ["rose", "and source F1 rose as well: +5.0"]),
        (UP, UNCLEAR, "open", ["no loss is shown", "one of up to 6.0 points is not excluded"]),
        (UP, LOST, "open", ["rose", "but source F1 was lost: −10.0 points (−14.0 to −6.0)"]),
        (FLAT, KEPT, "open", ["not distinguishable from no change"]),
        (FLAT, LOST, "bad", ["not distinguishable", "and source F1 was lost"]),
        (DOWN, KEPT, "bad", ["Target F1 fell from 40.0 to 30.0"]),
    ],
)
def test_the_sentence_follows_the_intervals(target, source, tone, words):
    found = say(target, source)
    assert found.tone == tone
    assert all(word in found.text for word in words), found.text


def test_no_change_at_all_is_said_as_such():
    assert "did not move: it stayed at 30.0" in say(domain(0.3, 0.3, 0.0, 0.0), KEPT).text


def test_what_must_stand_beside_it():
    found = say(domain(0.3, 0.4, 0.05, 0.15, mode="transductive", n=50), KEPT, reportable=False)
    assert [caveat.kind for caveat in found.caveats] == [
        CaveatKind.not_reportable, CaveatKind.few_sentences, CaveatKind.transductive,
        CaveatKind.no_labeller, CaveatKind.one_training,
    ]  # fmt: skip
    assert "Only 50 sentences" in found.caveats[1].text
    assert [caveat.kind for caveat in say(UP, KEPT).caveats] == [
        CaveatKind.no_labeller, CaveatKind.one_training
    ]  # fmt: skip


def with_labeller(value, low, high, *, after=0.46):
    """A target whose labeller alone has 48.9 %, and what training adds to it."""
    vote = {"before": {"f1": 0.489, "num_sentences": 100}}
    typed = {"after": {"f1": after, "num_sentences": 100}}
    return {**UP, "decoded": {"vote": vote, "typed": typed},
            "over_labeller": {"value": value, "low": low, "high": high}}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "tone", "words"),
    [
        (
            with_labeller(0.03, 0.01, 0.05, after=0.519),
            "good",
            "training adds to that (+3.0 points",
        ),
        (with_labeller(-0.03, -0.06, -0.01), "bad", "training takes from that (−3.0 points"),
        (
            with_labeller(-0.029, -0.06, 0.01),
            "open",
            "whether training adds to that cannot be told",
        ),
    ],
)
def test_what_the_labeller_alone_gives_comes_first(target, tone, words):
    found = say(target, KEPT, decode="typed")
    assert found.text.startswith(
        "The untrained labeller alone has a target F1 of 48.9 on the same 100 sentences, the "
        "trained model"
    )
    assert words in found.text
    assert "(typed answers)" in found.text
    assert "Greedily: target F1 rose from 30.0 to 40.0" in found.text
    assert found.tone == tone
    assert [caveat.kind for caveat in found.caveats] == [CaveatKind.one_training]


def test_a_collapse_to_empty_answers_is_named():
    fallen = domain(0.5, 0.0, -0.6, -0.4)
    fallen["before"] |= {"num_gold": 100, "num_predicted": 110}
    fallen["after"] |= {"num_gold": 100, "num_predicted": 9}
    text = " ".join(caveat.text for caveat in say(UP, fallen).caveats)
    assert "names next to nothing in the source domain" in text
    fallen["after"]["num_predicted"] = 10
    assert CaveatKind.collapsed not in {caveat.kind for caveat in say(UP, fallen).caveats}


def test_answers_that_are_not_there_yet():
    assert "has not been evaluated" in run_finding(None).text
    alone = {**UP, "after": None, "delta_f1": None}
    assert "Target F1 of greedy answers is 30.0 before training;" in say(alone, KEPT).text
    voted = {**alone, "decoded": {"vote": {"before": {"f1": 0.489, "num_sentences": 9}}}}
    assert "before training, of the untrained labeller 48.9;" in say(voted, KEPT).text
    assert "was not scored" in say({}, {}).text
    assert "forgetting is unknown" in say(UP, {}).text


def test_points_have_a_sign_and_no_negative_zero():
    assert [points(v) for v in (0.0321, -0.05, 0.0, -0.0001)] == ["+3.2", "−5.0", "0.0", "0.0"]
