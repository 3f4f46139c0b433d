"""The sentence at the top of a page says what the intervals allow, and no more."""

from __future__ import annotations

import pytest

from ccrl_cli.report.verdict import ArmResult, comparison, headline, points


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
    return headline({"reportable": True, "domains": {"target": target, "source": source}, **more})


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
    text = " ".join(found.caveats)
    assert found.caveats[0].startswith("Not reportable")
    assert "very sentences that it trained on" in text
    assert "Only 50 sentences" in text
    assert "One seed" in text
    assert say(UP, KEPT).caveats == (
        "One seed: the intervals are over sentences, not over repeated trainings.",
    )


def test_a_collapse_to_empty_answers_is_named():
    fallen = domain(0.5, 0.0, -0.6, -0.4)
    fallen["before"] |= {"num_gold": 100, "num_predicted": 110}
    fallen["after"] |= {"num_gold": 100, "num_predicted": 9}
    text = " ".join(say(UP, fallen).caveats)
    assert "names next to nothing in the source domain" in text
    fallen["after"]["num_predicted"] = 10
    assert "Collapsed" not in " ".join(say(UP, fallen).caveats)


def test_answers_that_are_not_there_yet():
    assert "has not been evaluated" in headline(None).text
    alone = {**UP, "after": None, "delta_f1": None}
    assert "Target F1 is 30.0 before training" in say(alone, KEPT).text
    assert "was not scored" in say({}, {}).text
    assert "forgetting is unknown" in say(UP, {}).text


def test_points_have_a_sign_and_no_negative_zero():
    assert [points(v) for v in (0.0321, -0.05, 0.0, -0.0001)] == ["+3.2", "−5.0", "0.0", "0.0"]


def test_arms_are_compared_over_their_common_seeds():
    results = [
        ArmResult("curriculum", 0, 0.50, 0.80),
        ArmResult("curriculum", 1, 0.52, 0.78),
        ArmResult("curriculum", 2, 0.99, 0.99),  # seed 2 has no partner
        ArmResult("naive-rl", 0, 0.48, 0.81),
        ArmResult("naive-rl", 1, 0.53, 0.75),
    ]
    # Target gaps +2 and −1: mean +0.5; source gaps −1 and +3: mean +1.
    assert comparison(results) == (
        "curriculum was ahead of naive-rl on average, in both domains, but not in every seed "
        "(2 seeds, not tested): target F1 +0.5 points on average, ahead in 1 of 2; source F1 +1.0 "
        "points on average, ahead in 1 of 2."
    )
    assert comparison(results[:3]) is None
    one = [ArmResult("curriculum", 0, 0.5, None), ArmResult("naive-rl", 0, 0.4, 0.1)]
    assert comparison(one) == (
        "curriculum adapted more than naive-rl here (one seed, not tested): target F1 +10.0 points."
    )


@pytest.mark.parametrize(
    ("target", "source", "words"),
    [
        ((0.01, 0.02), (0.01, 0.03), "won over naive-rl here in every seed, in both domains"),
        ((0.01,), (0.01,), "won over naive-rl here, in both domains"),
        ((0.03, -0.01), (0.01, 0.01), "ahead of naive-rl on average"),
        ((0.01, 0.01), (-0.02, 0.01), "adapted more than naive-rl here, and forgot at least as"),
        ((-0.01, 0.0), (0.02, 0.01), "adapted less than naive-rl here, and forgot less"),
        ((0.0, 0.0), (0.02, 0.01), "adapted no more than naive-rl here, and forgot less"),
        ((-0.01, -0.01), (0.0, -0.01), "did not win over naive-rl here, in either domain"),
    ],
)
def test_the_winner_is_named_plainly(target, source, words):
    pairs = list(enumerate(zip(target, source, strict=True)))
    ours = [ArmResult("curriculum", seed, 0.5 + t, 0.7 + s) for seed, (t, s) in pairs]
    other = [ArmResult("naive-rl", seed, 0.5, 0.7) for seed, _ in pairs]
    assert words in comparison([*ours, *other])
