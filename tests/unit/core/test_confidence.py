from __future__ import annotations

import math

import numpy as np
import pytest

from ccrl_cli.core.combination import METRICS, GeometricMean, LogisticCombination, combined
from ccrl_cli.core.confidence import (
    Evidence,
    confidence,
    entity_vote,
    logprob,
    self_consistency,
    semantic_entropy,
    type_posterior,
    winner,
)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 0, 1, 0], 0.75),
        ([0, 1, -1, -1], 0.25),  # the two invalid ones do not form a cluster of two
        ([-1, -1], 0.0),
        ([7, 7], 1.0),  # any numbers will do
    ],
)
def test_self_consistency(ids, expected):
    assert self_consistency(ids) == expected


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 0, 0, 0], 1.0),
        ([0, 1, 2, 3], 0.0),
        # Shares 1/2, 1/2: H = ln 2, ln K = 2 ln 2, so 1 - 1/2.
        ([0, 0, 1, 1], 0.5),
        # Shares 1/2, 1/4, 1/4: H = (1/2)ln 2 + 2(1/4)(2 ln 2) = 1.5 ln 2; 1 - 1.5/2.
        ([0, 0, 1, 2], 0.25),
        # Two invalid ones are two more clusters: the same as above.
        ([0, 0, -1, -1], 0.25),
        ([-1, -1, -1], 0.0),
        ([0], 1.0),
        ([-1], 0.0),
    ],
)
def test_semantic_entropy_from_counts(ids, expected):
    assert semantic_entropy(ids) == pytest.approx(expected, abs=1e-12)


def test_semantic_entropy_from_likelihoods():
    # The likelihoods sum to 1 already; both clusters have 0.3 + 0.2 = 0.5: H = ln 2, ln K = 2 ln 2.
    logprobs = [math.log(value) for value in (0.3, 0.3, 0.2, 0.2)]
    assert semantic_entropy([0, 1, 0, 1], logprobs) == pytest.approx(0.5)
    # 0.6 and 0.3, normalised 2/3 and 1/3: H = (2/3)ln(3/2) + (1/3)ln 3 = ln 3 - (2/3)ln 2.
    entropy = math.log(3) - 2 / 3 * math.log(2)
    value = semantic_entropy([0, 1], [math.log(0.6), math.log(0.3)])
    assert value == pytest.approx(1 - entropy / math.log(2))


def test_semantic_entropy_counts_where_a_likelihood_is_missing():
    assert semantic_entropy([0, 0, 1, 1], [-9.0, None, -0.1, -0.1]) == pytest.approx(0.5)
    assert semantic_entropy([0, 0, 1, 1], [None] * 4) == pytest.approx(0.5)


def test_likelihoods_that_underflow_are_no_trouble():
    assert semantic_entropy([0, 1], [-1e5, -1e5]) == pytest.approx(0.0)
    assert semantic_entropy([0, 1], [0.0, -1e5]) == pytest.approx(1.0)


def test_entity_vote():
    # Votes 8 and 4 of 8: (1 + 1/2) / 2.
    assert entity_vote([8, 4], 8, empty_share=0.9) == 0.75
    assert entity_vote([], 8, empty_share=0.625) == 0.625


def test_equal_votes_are_equal_confidences_to_the_last_bit():
    # 1/6 + 5/6 and 3/6 + 3/6 are both 6 votes of 6, whatever the shares round to.
    assert entity_vote([1, 5, 1], 6, 0.0) == entity_vote([3, 3, 1], 6, 0.0) == 7 / 18


def test_type_posterior():
    assert type_posterior([0.5, 1.0], 0.0) == 0.75
    assert type_posterior([], 0.25) == 0.25  # nothing kept: the share of empty answers
    with pytest.raises(ValueError, match="type scores"):
        type_posterior(None, 0.0)


def test_logprob_averages_the_members_of_the_winner():
    # Winner 0: (e^ln 0.5 + e^ln 0.9)/2 = 0.7; the other two do not count.
    ids = [0, 1, 0, -1]
    assert logprob(ids, [math.log(0.5), -0.01, math.log(0.9), None]) == pytest.approx(0.7)
    assert logprob([-1, -1], [-0.1, None]) == 0.0


def test_logprob_follows_the_winner_of_a_tie():
    assert logprob([0, 1], [math.log(0.2), math.log(0.4)]) == pytest.approx(0.4)


def test_logprob_without_logprobs_is_the_least_sure():
    assert logprob([0, 0, 1], [None, None, None]) == 0.0
    assert logprob([0, 0, 1], [math.log(0.5), None, None]) == pytest.approx(0.5)
    assert logprob([-1, -1], [None, None]) == 0.0


def test_rounding_noise_above_zero_is_accepted_and_more_is_not():
    assert logprob([0], [1e-9]) == 1.0
    with pytest.raises(ValueError, match="above 0"):
        logprob([0], [0.5])
    with pytest.raises(ValueError, match="infinite"):
        semantic_entropy([0, 1], [-math.inf, -0.1])


def test_ties_are_broken_by_mean_logprob_then_first_seen():
    ids = [[5, 2, 2, 5], [5, 2, 2, 5], [-1, -1, -1, 3], [-1, -1, -1, -1], [4, 9, 9, 4]]
    logprobs = [
        [-0.1, -0.2, -0.2, -0.9],  # means: 5 has -0.5, 2 has -0.2
        [-0.1, -0.2, -0.1, -0.2],  # equal means: 5 was first
        [0.0, 0.0, 0.0, -9.0],
        [0.0, 0.0, 0.0, 0.0],
        [None, -8.0, None, None],  # 4 has none known
    ]
    assert list(map(winner, ids, logprobs)) == [2, 5, 3, -1, 9]
    assert list(map(winner, ids)) == [5, 5, 3, -1, 4]


def test_clusters_tie_whatever_the_order_of_a_sum():
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    ids = [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    logprobs = [[-0.1, -0.2, -0.3, -0.3, -0.2, -0.1]] * 2
    assert list(map(winner, ids, logprobs)) == [0, 1]


def test_geometric_mean():
    # (0.25^1 * 0.5^3)^(1/4) = (2^-2 * 2^-3)^(1/4) = 2^-1.25
    weights = GeometricMean({"self_consistency": 1.0, "logprob": 3.0})
    values = {"self_consistency": 0.25, "logprob": 0.5, "entity_vote": 0.1}
    assert combined(values, weights) == pytest.approx(2**-1.25)
    assert combined(values | {"logprob": 0.0}, weights) == 0.0


def test_a_metric_of_weight_zero_is_not_needed():
    weights = GeometricMean({"self_consistency": 2.0, "logprob": 0.0})
    assert weights.metrics == ("self_consistency",)
    assert combined({"self_consistency": 0.3}, weights) == pytest.approx(0.3)


def test_logistic_combination():
    # -1 + 2*0.25 + 4*0.125 = 0, and sigmoid(0) = 1/2; with entity_vote 0.125 + ln(3)/4: 3/4.
    fit = LogisticCombination(-1.0, {"self_consistency": 2.0, "entity_vote": 4.0})
    values = {
        "self_consistency": [0.25, 0.25],
        "entity_vote": [0.125, 0.125 + math.log(3) / 4],
    }
    np.testing.assert_allclose(combined(values, fit), [0.5, 0.75])
    assert combined({"self_consistency": 0.0, "entity_vote": 0.0}, fit).shape == ()


def test_extreme_logistic_scores_do_not_overflow():
    fit = LogisticCombination(0.0, {"logprob": 1e6})
    assert combined({"logprob": 1.0}, fit) == 1.0
    assert combined({"logprob": 1.0}, LogisticCombination(0.0, {"logprob": -1e6})) == 0.0


def test_a_missing_metric_is_named():
    with pytest.raises(ValueError, match="no values for logprob"):
        combined({"entity_vote": 0.5}, GeometricMean({"logprob": 1.0}))


@pytest.mark.parametrize(
    "weights",
    [{}, {"logprob": 0.0}, {"logprob": -1.0, "entity_vote": 2.0}, {"logprob": math.inf},
     {"combined": 1.0}, {"confidence": 1.0}],
)  # fmt: skip
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"weight|combine"):
        GeometricMean(weights)


def test_dispatcher_reaches_every_metric():
    evidence = Evidence(
        [0, 0, 1, 1], [math.log(0.25)] * 4, kept_votes=[2, 4], type_posteriors=[0.2, 0.4]
    )
    values = {
        metric: confidence(metric, evidence, combination=GeometricMean({"logprob": 1.0}))
        for metric in METRICS
    }
    assert values == pytest.approx(
        {
            "self_consistency": 0.5,
            "semantic_entropy": 0.5,
            "entity_vote": 0.75,
            "logprob": 0.25,
            "type_posterior": 0.3,  # (0.2 + 0.4) / 2
            "combined": 0.25,
        }
    )


def test_dispatcher_refuses_what_it_does_not_know():
    evidence = Evidence([0], [None])
    with pytest.raises(ValueError, match="'entropy' is not one of self_consistency"):
        confidence("entropy", evidence)
    with pytest.raises(ValueError, match="needs a combination"):
        confidence("combined", evidence)


def test_bad_completions_are_refused():
    with pytest.raises(ValueError, match="K is 0"):
        self_consistency([])
    with pytest.raises(ValueError, match="K is 0"):
        winner([])
    with pytest.raises(ValueError, match="2 cluster ids but 1"):
        semantic_entropy([0, 1], [-1.0])
