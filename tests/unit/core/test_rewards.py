import json
import pickle
import time

import pytest

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.rewards import (
    OVERLAPS,
    RewardWeights,
    entity_f1,
    exact,
    expected_f1,
    format_reward,
    length_penalty,
    make_target,
    score,
    token_f1,
)
from ccrl_cli.records import Entity, Example, Parse

# 0 Ann 1 Lee 2 met 3 Bob 4 in 5 New 6 York 7 and 8 New 9 York 10 .
TEXT = "Ann Lee met Bob in New York and New York ."
ALIGNER = Aligner(Example(TEXT, *tokenize(TEXT)))
TYPES = {"person": "per", "location": "loc", "organisation": "org", "other": "misc"}
ANN, BOB, YORK = Entity("Ann Lee", "per"), Entity("Bob", "per"), Entity("New York", "loc")
LABEL = make_target(ALIGNER, [ANN, BOB, YORK])  # 2 + 1 + 2 = 5 label tokens
EMPTY = make_target(ALIGNER, [])
INVALID = Parse("invalid", reason="no list")


def says(*entities, outcome="valid", unknown=0):
    return Parse(outcome, entities, unknown)


def total(parse, target=LABEL, **weights):
    return score(parse, target, RewardWeights(**weights))["total"]


@pytest.mark.parametrize(
    ("entities", "value"),
    [
        ((ANN, BOB, YORK), 1.0),
        ((YORK, BOB, ANN), 1.0),
        ((ANN,), 4 / 7),  # 2·2 / (2 + 5)
        ((Entity("Lee", "per"),), 1 / 3),  # 2·1 / (1 + 5)
        ((Entity("Ann Lee met", "per"), BOB), 0.6666666666666666),  # 2·3 / (4 + 5)
        ((Entity("Ann Lee", "loc"), BOB, YORK), 0.6),  # 2·3 / (5 + 5)
        ((ANN, BOB, YORK, YORK), 10 / 12),  # the second place is not in the label: 2·5 / (7 + 5)
        ((ANN, BOB, YORK, ANN), 10 / 12),  # no second Ann Lee: her 2 tokens count as stated
        ((ANN, BOB, YORK, Entity("Mars and Venus", "loc")), 10 / 13),  # 3 tokens not in the text
        ((Entity("Mars", "loc"),), 0.0),
        ((), 0.0),
    ],
)
def test_token_f1(entities, value):
    assert token_f1(says(*entities), LABEL) == pytest.approx(value)


@pytest.mark.parametrize(
    ("entities", "value"),
    [
        ((BOB, YORK, ANN), 1.0),
        ((ANN,), 0.5),  # 2·1 / (1 + 3)
        ((ANN, ANN, ANN), 1 / 3),  # 2·1 / (3 + 3)
        ((ANN, Entity("Bob", "loc")), 0.4),  # 2·1 / (2 + 3)
        ((Entity("Ann  Lee", "per"), BOB, YORK, Entity("Mars", "loc")), 6 / 7),
        ((), 0.0),
    ],
)
def test_entity_f1(entities, value):
    assert entity_f1(says(*entities), LABEL) == pytest.approx(value)
    assert exact(says(*entities), LABEL) == float(value == 1)


@pytest.mark.parametrize("overlap", OVERLAPS.values(), ids=OVERLAPS)
def test_nothing_against_nothing_is_1_and_invalid_is_0(overlap):
    assert overlap(says(), EMPTY) == 1
    assert overlap(says(outcome="repaired"), EMPTY) == 1
    assert overlap(says(ANN), EMPTY) == 0
    assert overlap(INVALID, EMPTY) == overlap(INVALID, LABEL) == 0
    assert overlap(Parse("invalid", (ANN, BOB, YORK)), LABEL) == 0
    assert overlap(says(), LABEL) == 0
    assert overlap(says(ANN, BOB, YORK), LABEL) == 1


def test_the_place_of_a_name_with_two_types_does_not_depend_on_the_order():
    first, second = Entity("New York", "loc"), Entity("New York", "org")
    target = make_target(ALIGNER, [first, second])
    for answer in (says(first, second), says(second, first)):
        assert token_f1(answer, target) == entity_f1(answer, target) == 1
    # One of the two: 2·2 / (2 + 4), whichever it is.
    assert token_f1(says(first), target) == token_f1(says(second), target) == pytest.approx(2 / 3)


def test_the_order_of_mentions_that_compete_for_a_place_does_not_matter():
    text = "aa bb cc"
    target = make_target(Aligner(Example(text, *tokenize(text))), [Entity("aa", "x")])
    left, right = Entity("aa bb", "x"), Entity("bb cc", "x")
    # The first in alphabetical order is placed, the other states its 2 tokens: 2·1 / (4 + 1)
    for answer in (says(left, right), says(right, left)):
        assert token_f1(answer, target) == pytest.approx(0.4)


def test_abstained_mentions_are_removed_from_both_sides():
    target = make_target(ALIGNER, [ANN, BOB], abstained=[BOB, YORK])
    for overlap in (token_f1, entity_f1, exact, expected_f1):
        assert overlap(says(ANN), target) == 1
        assert overlap(says(ANN, BOB, YORK, YORK), target) == 1
        assert overlap(says(BOB), target) == 0
    # Of another type it is a prediction like any other: 2·2 / (2 + 2 + 2)
    assert token_f1(says(ANN, Entity("New York", "per")), target) == pytest.approx(2 / 3)
    only = make_target(ALIGNER, [], abstained=[ANN])
    assert token_f1(says(ANN), only) == token_f1(says(), only) == 1


def test_label_mentions_that_cannot_be_placed_are_no_target():
    mars, nested = Entity("Mars", "loc"), Entity("Ann", "per")
    target = make_target(ALIGNER, [ANN, mars, nested])
    assert (target.size, target.num_label_tokens) == (1, 2)
    assert total(says(ANN), target) > total(says(ANN, mars), target)
    assert token_f1(says(), make_target(ALIGNER, [mars])) == 1


def test_expected_f1():
    votes = [(ANN, 1.0), (BOB, 0.5), (Entity("Mars", "loc"), 0.9)]
    target = make_target(ALIGNER, [ANN, BOB], votes=votes)
    # Mars is not in the text: Σ v = 1.5.
    assert expected_f1(says(ANN, BOB), target) == pytest.approx(3 / 3.5)
    assert expected_f1(says(ANN), target) == pytest.approx(2 / 2.5)
    assert expected_f1(says(BOB, Entity("Mars", "loc")), target) == pytest.approx(1 / 3.5)
    # A copy without a place is one more prediction, one with a place is not: 2·1 / (2 + 1.5)
    assert expected_f1(says(ANN, ANN), target) == pytest.approx(2 / 3.5)
    york = make_target(ALIGNER, [YORK], votes=[(YORK, 0.8)])
    assert expected_f1(says(YORK), york) == pytest.approx(1.6 / 1.8)
    assert expected_f1(says(YORK, YORK), york) == pytest.approx(1.6 / 1.8)
    assert expected_f1(says(YORK, YORK, YORK), york) == pytest.approx(1.6 / 2.8)


def test_expected_f1_does_not_teach_to_invent_against_an_empty_label():
    target = make_target(ALIGNER, [], votes=[(ANN, 0.125)])
    assert expected_f1(says(), target) == 1
    assert expected_f1(says(ANN), target) == pytest.approx(0.25 / 1.125)


def test_votes_of_one_mention_written_twice_take_the_larger():
    votes = [(ANN, 0.5), (Entity("Ann  Lee", "per"), 0.75), (Entity("AnnLee", "per"), 0.25)]
    assert make_target(ALIGNER, [ANN], votes=votes).votes == {("AnnLee", "per"): 0.75}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_votes_are_shares(share):
    with pytest.raises(ValueError, match="vote"):
        make_target(ALIGNER, [], votes=[(ANN, share)])


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (says(ANN, BOB), 1.0),
        (says(ANN, BOB, outcome="repaired"), 0.5),
        (INVALID, 0.0),
        (says(), 0.0),
        (says(outcome="repaired"), 0.0),
        (says(YORK, YORK), 1.0),
        (says(YORK, YORK, YORK, YORK), 0.5),  # 2 of 4 beyond its places
        (says(ANN, Entity("Mars", "loc")), 0.5),
        (says(ANN, Entity("Bob", "zzz"), outcome="repaired", unknown=1), 0.25),
        (says(Entity("Mars", "zzz"), outcome="repaired", unknown=1), 0.0),
        (says(*(Entity("Bob", kind) for kind in TYPES.values())), 0.25),  # 1 place, 4 mentions
        (says(Entity("Ann", "per"), ANN), 1.0),  # nested, but each is in the text
    ],
)
def test_format(parse, value):
    assert format_reward(parse, LABEL) == pytest.approx(value)


def test_format_of_a_rightly_empty_list():
    assert format_reward(says(), EMPTY) == 1
    assert format_reward(says(outcome="repaired"), EMPTY) == 0.5


def test_empty_list_earns_no_more_than_a_wrong_answer():
    wrong = says(Entity("met", "misc"))
    for overlap in OVERLAPS:
        assert total(says(), overlap=overlap) == 0 == total(INVALID, overlap=overlap)
        assert total(wrong, overlap=overlap) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("tokens", "value"), [(0, 0), (100, 0), (150, -0.5), (175, -0.75), (200, -1), (9999, -1)]
)
def test_length_penalty(tokens, value):
    assert length_penalty(tokens, 100, 200) == value


@pytest.mark.parametrize(("soft", "limit"), [(-1, 5), (5, 5), (6, 5)])
def test_length_limits_must_be_in_order(soft, limit):
    with pytest.raises(ValueError, match="not in order"):
        length_penalty(1, soft, limit)
    with pytest.raises(ValueError, match="not in order"):
        RewardWeights(length_soft_tokens=soft, length_limit_tokens=limit)


def test_score_sums_weighted_parts():
    weights = RewardWeights("entity_f1", 2.0, 0.5, 0.25, 100, 200)
    parts = score(says(ANN, outcome="repaired"), LABEL, weights, num_tokens=150)
    # 2·0.5 + 0.5·0.5 − 0.25·0.5
    assert parts == {"overlap": 0.5, "format": 0.5, "length": -0.5, "total": 1.125}
    assert weights.range == (-0.25, 2.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": "f1"}, "token_f1, entity_f1, exact, expected_f1"),
        ({"format_weight": -1}, "format_weight is -1"),
        ({"overlap_weight": float("nan")}, "overlap_weight is nan"),
        ({"length_weight": float("inf")}, "length_weight is inf"),
    ],
)
def test_weights_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        RewardWeights(**options)


def written(*mentions):
    return json.dumps([{"text": text, "type": kind} for text, kind in mentions])


RIGHT = (("Ann Lee", "person"), ("Bob", "person"), ("New York", "location"))
WORDS = TEXT.split()
HACKS = {
    "empty list": "[]",
    "empty text": "",
    "blank mention": written((" ", "person")),
    "all types at once": written(*((text, kind) for text, _ in RIGHT for kind in TYPES)),
    "whole sentence, each type": written(*((TEXT, kind) for kind in TYPES)),
    "whole sentence": written((TEXT, "person")),
    "every word as a person": written(*((word, "person") for word in WORDS)),
    "every word, every type": written(*((word, kind) for word in WORDS for kind in TYPES)),
    "every range as a person": written(
        *((" ".join(WORDS[i:j]), "person") for i in range(11) for j in range(i + 1, 12))
    ),
    "500 copies of a right mention": written(*[RIGHT[0]] * 500),
    "label, then 500 copies": written(*RIGHT, *[RIGHT[0]] * 500),
    "label twice": written(*RIGHT, *RIGHT),
    "label in two lists": f"{written(*RIGHT)} {written(*RIGHT)}",
    "label and the second place": written(*RIGHT, RIGHT[2]),
    "label and a guess": written(*RIGHT, ("met", "other")),
    "label and an invention": written(*RIGHT, ("Atlantis", "location")),
    "label and an unknown type": written(*RIGHT, ("met", "verb")),
    "label, parts too": written(*RIGHT, ("Ann", "person"), ("York", "location")),
    "label behind prose": f"Sure, here it is: {written(*RIGHT)}",
    "label in a fence": f"```json\n{written(*RIGHT)}\n```",
    "label with extra keys": written(*RIGHT).replace("}", ', "confidence": 1.0}'),
    "label under unknown types": written(*((text, f"{kind}s") for text, kind in RIGHT)),
    "prompt echo": f"Find the entities.\nText: {TEXT}\nAnswer as [{{'text': ..., 'type': ...}}]",
    "copy of the text": TEXT,
    "empty list, then the label": f"[]\n{written(*RIGHT)}",
    "deep nesting": "[" * 5000 + "]" * 5000,
}


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("hack", HACKS.values(), ids=HACKS)
def test_no_hack_beats_the_label(hack, overlap):
    votes = [(ANN, 1.0), (BOB, 0.75), (YORK, 0.5)]
    target = make_target(ALIGNER, [ANN, BOB, YORK], votes=votes)
    weights = RewardWeights(overlap=overlap, length_weight=0.1)
    label = score(parse_completion(written(*RIGHT), TYPES), target, weights)
    assert label["format"] == 1
    parts = score(parse_completion(hack, TYPES), target, weights)
    # One is as good under the votes: they do not say how often a name is mentioned.
    if overlap == "expected_f1" and hack == HACKS["label and the second place"]:
        assert parts == label
    else:
        assert parts["total"] < label["total"]


@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("hack", [HACKS[name] for name in HACKS if name.startswith("every")])
def test_listing_everything_is_worse_than_one_right_mention(hack, overlap):
    weights = RewardWeights(overlap=overlap)
    one = score(parse_completion(written(RIGHT[0]), TYPES), LABEL, weights)
    if overlap == "exact":
        assert score(parse_completion(hack, TYPES), LABEL, weights)["overlap"] == 0
    else:
        assert score(parse_completion(hack, TYPES), LABEL, weights)["total"] < one["total"]


def test_target_travels_between_processes():
    copy = pickle.loads(pickle.dumps(LABEL))
    assert token_f1(says(ANN), copy) == token_f1(says(ANN), LABEL)


def test_a_long_answer_is_scored_in_time():
    text = " ".join(["a", "b"] * 250)
    target = make_target(Aligner(Example(text, *tokenize(text))), [Entity("a", "x")] * 250)
    answer = says(*(Entity("a b " * (i % 40 + 1), "x") for i in range(20_000)))
    start = time.process_time()
    for overlap in OVERLAPS:
        total(answer, target, overlap=overlap)
    assert time.process_time() - start < 4.0
