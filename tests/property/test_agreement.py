from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.agreement import (
    INVALID,
    Labeller,
    cluster,
)
from ccrl_cli.core.confidence import semantic_entropy
from ccrl_cli.records import Entity, Parse

entities = st.builds(Entity, st.sampled_from(["A", "B", "C d", "C  d"]), st.sampled_from("xy"))
valid = st.lists(entities, max_size=4).map(lambda items: Parse("valid", tuple(items)))
parses = st.one_of(valid, valid, valid, st.just(Parse("invalid")))
logprobs = st.one_of(st.none(), st.sampled_from([-0.1, -0.5, -2.0]))
samples = st.lists(st.tuples(parses, logprobs), min_size=1, max_size=10)
similarities = st.sampled_from([1.0, 0.8, 0.5, 0.1])


def split(items):
    return [parse for parse, _ in items], [logprob for _, logprob in items]


def partition(ids):
    return {frozenset(k for k, other in enumerate(ids) if other == number) for number in set(ids)}


@given(samples, st.randoms(use_true_random=False))
def test_votes_do_not_depend_on_the_order(items, random):
    shuffled = random.sample(items, len(items))
    one, other = Labeller()("x", *split(items)), Labeller()("x", *split(shuffled))
    assert one.votes == other.votes


@given(samples, similarities, st.randoms(use_true_random=False))
def test_clusters_do_not_depend_on_the_order(items, similarity, random):
    places = random.sample(range(len(items)), len(items))
    ids = cluster(split(items)[0], similarity=similarity)
    shuffled = cluster([items[place][0] for place in places], similarity=similarity)
    back = [shuffled[places.index(k)] for k in range(len(items))]
    assert partition(ids) == partition(back)
    assert [number == INVALID for number in ids] == [number == INVALID for number in back]


@given(samples, similarities)
def test_soft_clusters_only_join(items, similarity):
    exact = cluster(split(items)[0])
    soft = cluster(split(items)[0], similarity=similarity)
    for i in range(len(items)):
        for j in range(len(items)):
            if exact[i] == exact[j]:
                assert soft[i] == soft[j]


@given(samples, st.randoms(use_true_random=False))
def test_entropy_and_voted_label_do_not_depend_on_the_order(items, random):
    shuffled = random.sample(items, len(items))
    for metric in ("semantic_entropy", "entity_vote", "self_consistency"):
        labeller = Labeller(rule="entity_vote", metric=metric)
        one, other = labeller("x", *split(items)), labeller("x", *split(shuffled))
        assert one.entities == other.entities
        assert one.abstained == other.abstained
        # To the last bit, so that ties between inputs are broken by their ids alone.
        assert one.confidence == other.confidence


@given(samples, similarities, st.sampled_from(["majority", "entity_vote"]))
def test_a_label_is_made_of_votes_and_its_confidence_is_a_share(items, similarity, rule):
    for metric in ("self_consistency", "semantic_entropy", "entity_vote"):
        labeller = Labeller(rule=rule, metric=metric, similarity=similarity)
        label = labeller("x", *split(items))
        assert 0 <= label.confidence <= 1
        assert all(0 < share <= 1 for _, share in label.votes)
        voted = {(entity.text.replace(" ", ""), entity.type) for entity, _ in label.votes}
        kept = {(entity.text.replace(" ", ""), entity.type) for entity in label.entities}
        assert kept <= voted
        assert not set(label.entities) & set(label.abstained)


@given(samples, st.integers(1, 5))
def test_an_invalid_completion_more_never_raises_confidence(items, number):
    completions, _ = split(items)
    more = completions + [Parse("invalid")] * number
    for rule in ("majority", "entity_vote"):
        labeller = Labeller(rule=rule)
        before = labeller("x", completions, [None] * len(completions))
        after = labeller("x", more, [None] * len(more))
        assert after.confidence <= before.confidence
    if len(completions) > 1:
        before = semantic_entropy(cluster(completions))
        assert semantic_entropy(cluster(more)) <= before + 1e-12
