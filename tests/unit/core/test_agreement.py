from __future__ import annotations

import math

import pytest

from ccrl_cli.core.agreement import (
    INVALID,
    Labeller,
    canonical,
    cluster,
    pool,
    restrict_types,
)
from ccrl_cli.core.combination import GeometricMean
from ccrl_cli.records import Entity, Parse

BONN = Entity("Bonn", "location")
KOHL = Entity("Kohl", "person")
SPD = Entity("SPD", "party")
SPD_ORG = Entity("SPD", "organization")
BROKEN = Parse("invalid", reason="no list")


def says(*entities):
    return Parse("valid", entities)


def label(parses, mean_logprobs=None, **options):
    options = {"rule": "majority", "metric": "self_consistency"} | options
    return Labeller(**options)("x", parses, mean_logprobs or [None] * len(parses))


def test_canonical_form_is_the_sorted_multiset_of_normalised_mentions():
    assert canonical([KOHL, BONN, KOHL]) == (BONN, KOHL, KOHL)
    composed, decomposed = "Köln", "Ko\u0308ln"
    assert canonical([Entity(composed, "location")]) == canonical([Entity(decomposed, "location")])
    assert canonical([Entity("New  York", "x")]) == canonical([Entity(" New York", "x")])
    assert canonical([Entity("bonn", "location")]) != canonical([BONN])


def test_clusters_are_numbered_by_first_appearance_and_invalid_is_apart():
    parses = [BROKEN, says(BONN, KOHL), says(), says(KOHL, BONN), BROKEN, says(KOHL)]
    assert cluster(parses) == [INVALID, 0, 1, 0, INVALID, 2]


def test_copies_make_another_cluster():
    assert cluster([says(BONN), says(BONN, BONN)]) == [0, 1]


def test_soft_clusters_join_along_a_chain():
    # F1(ab, bc) = 2*1/4 = 0.5, F1(bc, cd) = 0.5, F1(ab, cd) = 0: linked through the middle.
    a, b, c, d = (Entity(name, "t") for name in "abcd")
    parses = [says(a, b), says(c, d), says(), says(b, c), BROKEN]
    assert cluster(parses, similarity=0.5) == [0, 0, 1, 0, INVALID]
    assert cluster(parses, similarity=0.51) == [0, 1, 2, 3, INVALID]


def test_soft_threshold_is_met_by_an_equal_f1():
    # One shared of 2 + 3 mentions more: 2*2/5 = 0.8 exactly at the threshold.
    a, b, c = (Entity(name, "t") for name in "abc")
    assert cluster([says(a, b), says(a, b, c)], similarity=0.8) == [0, 0]


@pytest.mark.parametrize("similarity", [0.0, -1.0, 1.1, math.nan])
def test_bad_similarity_is_refused(similarity):
    with pytest.raises(ValueError, match="similarity"):
        cluster([says()], similarity=similarity)
    with pytest.raises(ValueError, match="similarity"):
        Labeller(similarity=similarity)


def test_votes_are_shares_of_all_completions():
    # BONN in 2 of 4 (the copy is not a second vote), KOHL in 1 of 4; the invalid one counts in 4.
    parses = [says(BONN, BONN), says(BONN, KOHL), says(), BROKEN]
    assert label(parses).votes == ((BONN, 0.5), (KOHL, 0.25))


def test_votes_show_the_most_frequent_spelling():
    spaced, joined = Entity("U. S.", "location"), Entity("U.S.", "location")
    assert label([says(spaced), says(joined), says(joined)]).votes == ((joined, 1.0),)


def test_majority_wins_by_count():
    result = label([says(KOHL), says(BONN), says(BONN), BROKEN])
    assert result.entities == (BONN,)
    assert result.confidence == 0.5  # 2 of 4
    assert (result.num_completions, result.num_invalid) == (4, 1)
    assert result.votes == ((BONN, 0.5), (KOHL, 0.25))
    assert result.abstained == ()


def test_invalid_completions_never_win():
    result = label([BROKEN, BROKEN, BROKEN, says(KOHL)])
    assert result.entities == (KOHL,)
    assert result.confidence == 0.25


@pytest.mark.parametrize(
    "metric", ["self_consistency", "semantic_entropy", "entity_vote", "logprob", "combined"]
)
@pytest.mark.parametrize("rule", ["majority", "entity_vote"])
@pytest.mark.parametrize("logprob", [None, -0.1])
def test_nothing_valid_gives_an_empty_label_without_confidence(rule, metric, logprob):
    mean = GeometricMean({"logprob": 1.0})
    result = label([BROKEN] * 3, [logprob] * 3, rule=rule, metric=metric, combination=mean)
    assert result.entities == ()
    assert result.confidence == 0.0
    assert result.num_invalid == 3


def test_an_empty_answer_is_not_an_invalid_one():
    result = label([says(), says(), BROKEN])
    assert result.entities == ()
    assert result.confidence == pytest.approx(2 / 3)


def test_majority_ties_go_to_the_higher_mean_logprob():
    # Two each; means -0.5 (KOHL: -0.9, -0.1) and -0.4 (BONN).
    parses = [says(KOHL), says(BONN), says(KOHL), says(BONN)]
    assert label(parses, [-0.9, -0.4, -0.1, -0.4]).entities == (BONN,)
    assert label(parses, [-0.5, -0.4, -0.1, -0.4]).entities == (KOHL,)


def test_majority_ties_go_to_the_first_seen_at_last():
    parses = [says(KOHL), says(BONN), says(BONN), says(KOHL)]
    assert label(parses, [-0.1, -0.2, -0.1, -0.2]).entities == (KOHL,)
    assert label(parses).entities == (KOHL,)


def test_a_known_logprob_wins_a_tie_against_an_unknown_one():
    assert label([says(KOHL), says(BONN)], [None, -3.0]).entities == (BONN,)


def test_majority_keeps_the_order_of_its_likeliest_member():
    parses = [says(KOHL, BONN), says(BONN, KOHL), says(KOHL, BONN)]
    assert label(parses, [-0.3, -0.1, -0.2]).entities == (BONN, KOHL)
    assert label(parses, [None, None, -0.2]).entities == (KOHL, BONN)


def test_entity_vote_keeps_abstains_and_rejects():
    # K = 8: KOHL 5/8, BONN 4/8 = positive, SPD 3/8 abstains, SPD_ORG 1/8 = negative abstains.
    parses = [
        says(KOHL, BONN), says(KOHL, BONN), says(KOHL, BONN, SPD), says(KOHL, BONN, SPD),
        says(KOHL, SPD), says(SPD_ORG), says(), BROKEN,
    ]  # fmt: skip
    result = label(parses, rule="entity_vote", metric="entity_vote")
    assert result.entities == (KOHL, BONN)
    assert result.abstained == (SPD, SPD_ORG)
    assert result.confidence == pytest.approx((5 / 8 + 4 / 8) / 2)
    stricter = label(parses, rule="entity_vote", metric="entity_vote", negative=0.126)
    assert stricter.abstained == (SPD,)
    assert dict(stricter.votes)[SPD_ORG] == 0.125


def test_entity_vote_without_kept_entities_is_as_sure_as_the_empty_answers():
    parses = [says(), says(), says(), says(BONN), BROKEN]
    result = label(parses, rule="entity_vote", metric="entity_vote")
    assert result.entities == ()
    assert result.confidence == pytest.approx(3 / 5)


def test_entity_vote_order_is_the_mean_place():
    # BONN at places 0, 0, 1 (mean 1/3), KOHL at 1, 1, 0 (mean 2/3).
    parses = [says(BONN, KOHL), says(BONN, KOHL), says(KOHL, BONN)]
    assert label(parses, rule="entity_vote").entities == (BONN, KOHL)


def test_entity_vote_copies_are_the_lower_median():
    # Copies of BONN where it occurs: 1, 2, 2, 500 -> lower median 2.
    parses = [says(BONN), says(BONN, BONN), says(BONN, BONN), says(*[BONN] * 500), says()]
    assert label(parses, rule="entity_vote").entities == (BONN, BONN)
    # 1, 2 -> 1: the cautious one of two.
    assert label(parses[:2], rule="entity_vote").entities == (BONN,)


def test_confidence_of_a_majority_label_can_be_its_votes():
    # Label {KOHL, BONN}: votes 3/3 and 2/3.
    parses = [says(KOHL, BONN), says(KOHL, BONN), says(KOHL)]
    assert label(parses, metric="entity_vote").confidence == pytest.approx(5 / 6)


def test_unknown_types_never_enter_a_label():
    spaceship = Entity("Enterprise", "spaceship")
    parses = [says(KOHL, spaceship), says(KOHL, spaceship), says(KOHL), says(spaceship)]
    for rule in ("majority", "entity_vote"):
        result = label(parses, rule=rule, types={"person"})
        assert result.entities == (KOHL,)
        # The last one names only an unknown type: not an empty answer, and it stays in K.
        assert result.confidence == 0.75
        assert result.votes == ((KOHL, 0.75),)
        assert result.num_invalid == 0  # it did parse


def test_an_answer_of_unknown_types_alone_is_not_an_empty_answer():
    only_unknown = Parse("repaired", (SPD,), 1, "unknown type")
    kept, empty, broken = restrict_types([only_unknown, says(), BROKEN], ["person"])
    assert kept.outcome == "invalid"
    assert kept.num_unknown_types == 1
    assert empty == says()
    assert broken is BROKEN
    result = label([only_unknown] * 3 + [says()], types=["person"], metric="entity_vote")
    assert result.entities == ()
    assert result.confidence == 0.25


def test_soft_majority_joins_near_answers():
    # KOHL+BONN and KOHL+BONN+SPD join (F1 0.8): 2 of 5 exact ties become 3 of 5.
    parses = [says(), says(KOHL, BONN), says(KOHL, BONN, SPD), says(), says(KOHL, BONN)]
    assert label(parses).entities == ()
    soft = label(parses, [-1.0, -0.5, -0.3, -1.0, -0.6], similarity=0.8)
    assert soft.entities == (KOHL, BONN, SPD)  # the likeliest member's own answer
    assert soft.confidence == pytest.approx(3 / 5)


def test_pool_gives_every_completion_one_vote():
    parses, logprobs = pool([([says(KOHL)], [-0.1]), ([says(BONN), says(BONN)], [None, -0.2])])
    assert logprobs == [-0.1, None, -0.2]
    assert label(parses, logprobs).entities == (BONN,)
    with pytest.raises(ValueError, match="1 parses but 2"):
        pool([([says()], [None, None])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "plurality"}, "rule 'plurality' is not one of majority, entity_vote"),
        ({"metric": "entropy"}, "metric 'entropy' is not one of self_consistency"),
        ({"metric": "combined"}, "needs a combination"),
        ({"positive": 0.2, "negative": 0.3}, "not in order"),
        ({"positive": 1.2}, "not in order"),
        ({"negative": -0.1}, "not in order"),
        ({"negative": math.nan}, "not in order"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Labeller(**options)


def test_bad_completions_are_refused():
    with pytest.raises(ValueError, match="0 parses"):
        label([])
    with pytest.raises(ValueError, match="1 parses and 2 log"):
        label([says()], [None, None])


def test_unknown_logprobs_are_the_least_sure():
    assert label([says()], metric="logprob").confidence == 0.0
