from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.confidence import (
    cluster_entropy,
    logprob,
    self_consistency,
    semantic_entropy,
    winner,
)

ids_lists = st.lists(st.integers(-1, 4), min_size=1, max_size=12)
logprobs = st.floats(-5.0, 0.0)
sampled = st.lists(st.tuples(st.integers(-1, 4), logprobs), min_size=1, max_size=12)


@given(ids_lists)
def test_entropy_is_zero_exactly_for_one_cluster_and_at_most_ln_k(ids):
    entropy = cluster_entropy(ids)
    agrees = set(ids) != {-1} and len(set(ids)) == 1
    assert (entropy == 0) == (agrees or len(ids) == 1)
    assert 0 <= entropy <= math.log(len(ids))
    assert (semantic_entropy(ids) == 1) == agrees


@given(sampled)
def test_likelihood_entropy_is_zero_exactly_for_one_cluster_and_at_most_ln_k(items):
    ids, known = zip(*items, strict=True)
    entropy = cluster_entropy(ids, known)
    agrees = set(ids) != {-1} and len(set(ids)) == 1
    assert (entropy < 1e-9) == (agrees or len(ids) == 1)
    assert 0 <= entropy <= math.log(len(ids))


@given(sampled)
def test_entropy_equals_the_sum_over_clusters(items):
    ids, known = zip(*items, strict=True)
    # Direct: give every invalid completion an id of its own, then -sum p ln p over clusters.
    names = [number if number >= 0 else -1 - k for k, number in enumerate(ids)]
    counts = Counter(names)
    direct = -sum(n / len(ids) * math.log(n / len(ids)) for n in counts.values())
    assert cluster_entropy(ids) == pytest.approx(direct, abs=1e-12)
    mass: Counter[int] = Counter()
    for name, value in zip(names, known, strict=True):
        mass[name] += math.exp(value)
    total = sum(mass.values())
    direct = -sum(m / total * math.log(m / total) for m in mass.values())
    assert cluster_entropy(ids, known) == pytest.approx(direct, abs=1e-12)


@given(sampled, st.randoms(use_true_random=False))
def test_metrics_do_not_depend_on_the_order(items, random):
    shuffled = random.sample(items, len(items))
    (ids, known), (other_ids, other_known) = zip(*items, strict=True), zip(*shuffled, strict=True)
    assert self_consistency(ids) == self_consistency(other_ids)
    assert semantic_entropy(ids) == pytest.approx(semantic_entropy(other_ids), abs=1e-12)
    one, other = semantic_entropy(ids, known), semantic_entropy(other_ids, other_known)
    assert one == pytest.approx(other, abs=1e-12)


@given(sampled)
def test_metrics_do_not_depend_on_the_names_of_clusters(items):
    ids, known = zip(*items, strict=True)
    renamed = [number if number < 0 else 1000 - 7 * number for number in ids]
    assert self_consistency(ids) == self_consistency(renamed)
    assert semantic_entropy(ids, known) == semantic_entropy(renamed, known)
    assert logprob(ids, known) == logprob(renamed, known)


@given(sampled)
def test_the_winner_is_a_largest_valid_cluster(items):
    ids, known = zip(*items, strict=True)
    counts = Counter(number for number in ids if number >= 0)
    best = winner(ids, known)
    if not counts:
        assert best == -1
    else:
        assert counts[best] == max(counts.values())
        assert self_consistency(ids) == counts[best] / len(ids)
