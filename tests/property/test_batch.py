"""Arrays and the plain functions say the same of any completions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_cli.core.agreement import INVALID, Labeller, cluster
from ccrl_cli.core.alignment import Aligner, mention_key, tokenize
from ccrl_cli.core.batch import label_batch
from ccrl_cli.core.columns import cluster_batch, make_chunks, make_columns
from ccrl_cli.core.combination import GeometricMean
from ccrl_cli.core.reward_batch import PARTS, score_batch
from ccrl_cli.core.rewards import OVERLAPS, RewardWeights, make_target, score
from ccrl_cli.records import Entity, Example, Parse

SURFACES = ["a", "b", "c", "a b", "a  b", "b c", "a b c", "c a", "z", "z a", "e\u0301", "é"]
ENTITIES = st.builds(Entity, st.sampled_from(SURFACES), st.sampled_from(["x", "y", "other"]))
MENTIONS = st.lists(ENTITIES, max_size=6).map(tuple)
VALID = st.builds(
    lambda outcome, mentions, unknown: Parse(outcome, mentions, min(unknown, len(mentions))),
    st.sampled_from(["valid", "valid", "repaired"]),
    MENTIONS,
    st.sampled_from([0, 0, 1]),
)
PARSES = st.one_of(VALID, VALID, VALID, st.just(Parse("invalid")))
LOGPROBS = st.one_of(st.none(), st.sampled_from([-0.1, -0.5, -2.0]))
SAMPLES = st.lists(st.tuples(PARSES, LOGPROBS), min_size=1, max_size=6)
INPUTS = st.lists(SAMPLES, min_size=1, max_size=5)
TEXTS = st.lists(st.sampled_from(["a", "b", "c", "é"]), max_size=8).map(" ".join)
METRICS = ["self_consistency", "semantic_entropy", "entity_vote", "type_posterior", "combined"]


def partition(ids):
    return {frozenset(k for k, other in enumerate(ids) if other == number) for number in set(ids)}


@given(INPUTS, st.sampled_from([1.0, 0.8, 2 / 3, 0.5, 0.1]))
def test_clusters_equal_those_of_the_loop(inputs, similarity):
    for items in inputs:
        parses = [parse for parse, _ in items]
        expected = cluster(parses, similarity=similarity)
        found = cluster_batch(make_columns([parses]), similarity=similarity)[0].tolist()
        assert partition(found) == partition(expected)
        assert [n == INVALID for n in found] == [n == INVALID for n in expected]


@given(
    INPUTS,
    st.sampled_from(["majority", "entity_vote"]),
    st.sampled_from(METRICS),
    st.sampled_from([1.0, 0.5]),
    st.sampled_from([None, ("x", "y"), ()]),
)
@settings(max_examples=300)
def test_labels_equal_those_of_the_loop(inputs, rule, metric, similarity, types):
    labeller = Labeller(
        rule=rule,
        metric=metric,
        positive=0.5,
        negative=0.25,
        similarity=similarity,
        types=types,
        combination=GeometricMean({"entity_vote": 1.0, "self_consistency": 2.0}),
    )
    ids = [f"{number}" for number in range(len(inputs))]
    samples = [[parse for parse, _ in items] for items in inputs]
    logprobs = [[logprob for _, logprob in items] for items in inputs]
    known = {
        (mention_key(text), kind): (len(text) % 5) / 5
        for text in SURFACES
        for kind in ("x", "y", "other")
    }
    loop = [
        labeller(key, parses, values, known)
        for key, parses, values in zip(ids, samples, logprobs, strict=True)
    ]
    batch = label_batch(labeller, ids, samples, logprobs, dict.fromkeys(ids, known))
    for one, other in zip(loop, batch, strict=True):
        assert other.confidence == pytest.approx(one.confidence, abs=1e-12)
        assert replace(other, confidence=0.0) == replace(one, confidence=0.0)


@given(st.lists(st.tuples(TEXTS, SAMPLES, MENTIONS, MENTIONS), min_size=1, max_size=4), st.data())
@settings(max_examples=300)
def test_rewards_equal_those_of_the_loop(inputs, data):
    weights = RewardWeights(
        overlap=data.draw(st.sampled_from(sorted(OVERLAPS))),
        length_weight=0.3,
        length_soft_tokens=2,
        length_limit_tokens=4,
    )
    voted = data.draw(st.booleans())
    samples, targets = [], []
    for text, items, label, abstained in inputs:
        votes = [(entity, 0.25 + 0.5 * (len(entity.text) % 2)) for entity in label]
        aligner = Aligner(Example(text, *tokenize(text)))
        targets.append(make_target(aligner, label, abstained, votes if voted else None))
        samples.append([parse for parse, _ in items])
    num_tokens = [[k for k, _ in enumerate(parses)] for parses in samples]
    batch = score_batch(samples, targets, weights, num_tokens)
    for n, parses in enumerate(samples):
        for k, parse in enumerate(parses):
            expected = score(parse, targets[n], weights, num_tokens=num_tokens[n][k])
            for part in PARTS:
                assert batch[part][n][k] == pytest.approx(expected[part], abs=1e-12), part


@given(st.permutations([0, 1, 2, 3]), st.lists(PARSES, min_size=4, max_size=4))
def test_votes_do_not_depend_on_the_order(order, parses):
    labeller = Labeller(rule="entity_vote", metric="entity_vote")
    shuffled = [parses[k] for k in order]
    one, other = label_batch(labeller, ["a", "b"], [parses, shuffled], [[None] * 4] * 2)
    assert one.votes == other.votes
    assert one.entities == other.entities
    # Equal votes give equal confidences to the last bit, so ties are broken by input id alone.
    assert one.confidence == other.confidence


def test_bad_shapes_are_refused():
    labeller = Labeller()
    with pytest.raises(ValueError, match="1 inputs, 2 samples"):
        label_batch(labeller, ["a"], [[Parse("valid")], [Parse("valid")]], [[None]])
    with pytest.raises(ValueError, match="at least one"):
        make_chunks([[]])
    with pytest.raises(ValueError, match="0 parses"):
        label_batch(labeller, ["a"], [[]], [[]])
    with pytest.raises(ValueError, match="not in"):
        cluster_batch(make_columns([[Parse("valid")]]), similarity=0.0)
    with pytest.raises(ValueError, match="same number"):
        make_columns([[Parse("valid")], [Parse("valid")] * 2])
    with pytest.raises(ValueError, match="1 inputs but 0 targets"):
        score_batch([[Parse("valid")]], [], RewardWeights())


def test_no_inputs_give_no_labels():
    assert label_batch(Labeller(), [], [], []) == []
    assert score_batch([], [], RewardWeights()) == {part: [] for part in PARTS}
