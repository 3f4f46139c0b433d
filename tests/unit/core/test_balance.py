"""The mix of types that is open first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.balance import balanced_ranks, label_kinds, mix, skews
from ccrl_cli.core.curriculum import order_inputs


def test_ranks_are_percentiles_within_types():
    entities = {
        "a": [("person", 0.9), ("party", 0.4)],
        "b": [("person", 0.9), ("person", 0.7)],
        "c": [("party", 0.2)],
        "d": [],
        "e": [],
    }
    confidence = {"a": 0.65, "b": 0.8, "c": 0.2, "d": 0.9, "e": 0.1}
    ranks = balanced_ranks(entities, confidence)
    # people 0.7 0.9 0.9: 1/6, and 2/3 twice; parties 0.2 0.4: 1/4, 3/4; empty 0.1 0.9: 1/4, 3/4
    assert ranks == pytest.approx(
        {"a": (2 / 3 + 3 / 4) / 2, "b": (2 / 3 + 1 / 6) / 2, "c": 1 / 4, "d": 3 / 4, "e": 1 / 4}
    )
    assert order_inputs(confidence, "confidence", ranks=ranks) == ("d", "a", "b", "c", "e")
    assert order_inputs(confidence, "anti", ranks=ranks) == ("c", "e", "b", "a", "d")
    kept = order_inputs(confidence, "confidence", threshold=0.5, ranks=ranks)
    assert kept == ("d", "a", "b")  # the threshold is one of confidence


def test_balance_brings_a_hard_type_into_the_first_stage():
    confidence = {f"p{i}": 0.9 - i / 100 for i in range(10)}
    confidence |= {f"q{i}": 0.5 - i / 100 for i in range(10)}
    entities = {key: [(key[0], value)] for key, value in confidence.items()}
    assert {key[0] for key in order_inputs(confidence, "confidence")[:10]} == {"p"}
    ranks = balanced_ranks(entities, confidence)
    surest = order_inputs(confidence, "confidence", ranks=ranks)[:10]
    assert sorted(surest) == sorted([f"{kind}{i}" for kind in "pq" for i in range(5)])


def test_skew_is_what_would_have_to_be_of_another_kind():
    labels = [label_kinds(types) for types in (["p"], ["p", "p"], [], ["q", "q"], ["q", "q"])]
    assert mix(labels) == {"p": 3 / 8, None: 1 / 8, "q": 4 / 8}
    # p alone: 3/8 of it may stay; p p p and one empty: 3/8 and 1/8 may stay
    assert skews(labels, [1, 2, 3, 5]) == pytest.approx([5 / 8, 5 / 8, 1 / 2, 0])


@given(st.lists(st.lists(st.sampled_from("xyz"), max_size=4), min_size=1, max_size=9))
def test_skews_lie_between_0_and_1_and_end_at_0(types):
    labels = [label_kinds(one) for one in types]
    found = skews(labels, range(1, len(labels) + 1))
    assert all(-1e-9 <= value < 1 for value in found)
    assert found[-1] == pytest.approx(0)
    for size, value in enumerate(found, 1):
        opened, whole = mix(labels[:size]), mix(labels)
        assert value == pytest.approx(sum(abs(opened.get(k, 0) - whole[k]) for k in whole) / 2)
