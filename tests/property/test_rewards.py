from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, mention_key, mention_of, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.rewards import OVERLAPS, RewardWeights, expected_f1, make_target, score
from ccrl_cli.records import Entity, Example, Parse

TYPES = {"one": "x", "two": "y"}
WEIGHTS = {name: RewardWeights(overlap=name) for name in OVERLAPS}
SURFACES = ["a", "b", "c", "a b", "b c", "a b c", "c a", "z", "z a"]
MENTIONS = st.lists(
    st.builds(Entity, st.sampled_from(SURFACES), st.sampled_from(["x", "y"])), max_size=6
)
ALIGNERS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=8).map(
    lambda words: Aligner(Example(" ".join(words), *tokenize(" ".join(words))))
)
ANSWERS = st.builds(
    lambda outcome, mentions, unknown: Parse(
        "repaired" if unknown and outcome == "valid" else outcome,
        () if outcome == "invalid" else tuple(mentions),
        0 if outcome == "invalid" else min(unknown, len(mentions)),
    ),
    st.sampled_from(["valid", "valid", "repaired", "invalid"]),
    MENTIONS,
    st.sampled_from([0, 0, 1]),
)


def placed(aligner, mentions):
    """Return the mentions that are a target: in text, without overlap, in the target's order."""
    keyed = sorted(mentions, key=mention_of)
    places = aligner.place([mention_key(mention.text) for mention in keyed])
    return tuple(m for m, place in zip(keyed, places, strict=True) if place is not None)


@given(ALIGNERS, MENTIONS, MENTIONS, ANSWERS, st.integers(0, 400))
def test_parts_and_total_are_in_range(aligner, label, abstained, answer, num_tokens):
    target = make_target(aligner, label, abstained)
    for name in OVERLAPS:
        weights = RewardWeights(overlap=name, length_weight=0.5)
        parts = score(answer, target, weights, num_tokens=num_tokens)
        assert 0 <= parts["overlap"] <= 1
        assert 0 <= parts["format"] <= 1
        assert -1 <= parts["length"] <= 0
        lowest, highest = weights.range
        assert lowest <= parts["total"] <= highest


@given(ALIGNERS, MENTIONS, MENTIONS, ANSWERS)
def test_no_answer_scores_above_the_label(aligner, label, abstained, answer):
    target = make_target(aligner, label, abstained)
    kept = placed(aligner, [mention for mention in label if mention not in set(abstained)])
    for weights in WEIGHTS.values():
        best = score(Parse("valid", kept), target, weights)
        assert best == {"overlap": 1, "format": 1, "length": 0, "total": weights.range[1]}
        assert score(answer, target, weights)["total"] <= best["total"]


@given(ALIGNERS, MENTIONS, MENTIONS, st.randoms(use_true_random=False))
def test_order_does_not_matter(aligner, label, mentions, random):
    shuffled, shuffled_label = list(mentions), list(label)
    random.shuffle(shuffled)
    random.shuffle(shuffled_label)
    target, other = make_target(aligner, label), make_target(aligner, shuffled_label)
    for weights in WEIGHTS.values():
        left = score(Parse("valid", tuple(mentions)), target, weights)
        right = score(Parse("valid", tuple(shuffled)), other, weights)
        assert left == pytest.approx(right)


@given(ALIGNERS, MENTIONS, MENTIONS, ANSWERS)
def test_an_empty_list_earns_no_more_than_any_other_answer(aligner, label, abstained, answer):
    target = make_target(aligner, label, abstained)
    if not target.size:
        return
    for weights in WEIGHTS.values():
        empty = score(Parse("valid"), target, weights)["total"]
        assert empty == 0
        assert empty <= score(answer, target, weights)["total"]


@given(ALIGNERS, MENTIONS, ANSWERS)
def test_overlap_is_1_only_for_the_label(aligner, label, answer):
    target = make_target(aligner, label)
    due = Counter(map(mention_of, placed(aligner, label)))
    stated = Counter(map(mention_of, answer.entities))
    equal = stated == due and answer.outcome != "invalid"
    for name in ("entity_f1", "exact"):
        assert (OVERLAPS[name](answer, target) == 1) == equal
    if equal:
        assert OVERLAPS["token_f1"](answer, target) == 1


@given(ALIGNERS, MENTIONS, MENTIONS)
def test_entity_f1_equals_the_f1_of_multisets(aligner, label, mentions):
    stated, due = (
        Counter(map(mention_of, mentions)),
        Counter(map(mention_of, placed(aligner, label))),
    )
    total = stated.total() + due.total()
    expected = 2 * (stated & due).total() / total if total else 1.0
    answer = Parse("valid", tuple(mentions))
    assert OVERLAPS["entity_f1"](answer, make_target(aligner, label)) == pytest.approx(expected)


@given(ALIGNERS, MENTIONS, MENTIONS, st.sampled_from(["z", "z z", "z a b"]), st.integers(1, 5))
def test_inventing_never_pays(aligner, label, mentions, surface, copies):
    target = make_target(aligner, label)
    padded = Parse("valid", (*mentions, *[Entity(surface, "x")] * copies))
    for weights in WEIGHTS.values():
        if not mentions and target.size:
            continue  # an empty list is not worth more than a wrong answer
        before = score(Parse("valid", tuple(mentions)), target, weights)["total"]
        assert score(padded, target, weights)["total"] <= before + 1e-12


@given(ALIGNERS, MENTIONS.filter(bool), MENTIONS, st.data())
def test_copies_beyond_the_text_never_pay(aligner, mentions, label, data):
    mention = data.draw(st.sampled_from(mentions))
    spent = mentions + [mention] * max(1, aligner.num_tokens)
    target = make_target(aligner, label)
    for weights in WEIGHTS.values():
        once = score(Parse("valid", tuple(spent)), target, weights)["total"]
        more = score(Parse("valid", (*spent, *[mention] * 500)), target, weights)["total"]
        assert more <= once + 1e-12


@given(ALIGNERS, MENTIONS, st.lists(st.floats(0, 1), min_size=6, max_size=6), ANSWERS)
def test_expected_f1_is_highest_at_the_highest_votes(aligner, mentions, shares, answer):
    votes = list(
        {(m.text, m.type): (m, v) for m, v in zip(mentions, shares, strict=False)}.values()
    )
    votes = [
        (mention, share) for mention, share in votes if aligner.places(mention_key(mention.text))
    ]
    if not votes or not make_target(aligner, [votes[0][0]]).size:
        return
    target = make_target(aligner, [votes[0][0]], votes=votes)
    ranked = [mention for mention, _ in sorted(votes, key=lambda vote: -vote[1])]
    best = max(
        expected_f1(Parse("valid", tuple(ranked[:n])), target) for n in range(1, len(ranked) + 1)
    )
    assert expected_f1(answer, target) <= best + 1e-12


@given(ALIGNERS, MENTIONS, st.text(max_size=60))
def test_any_text_can_be_scored(aligner, label, text):
    target = make_target(aligner, label)
    for weights in WEIGHTS.values():
        parts = score(parse_completion(text, TYPES), target, weights)
        assert 0 <= parts["total"] <= weights.range[1]
