"""Rounds: budgets, held-out inputs, agreement of labels, and when another round is worth it."""

from __future__ import annotations

import pytest

from ccrl_cli.core.rounds import (
    compare_labels,
    has_fallen,
    held_out_agreement,
    is_held_out,
    share_out,
    vote_agreement,
)
from ccrl_cli.records import Entity, PseudoLabel

ADA, BO, CY = (Entity(name, "person") for name in ("Ada", "Bo", "Cy"))


def label(*entities, votes=(), abstained=()):
    return PseudoLabel("x", entities, 0.5, "entity_vote", "entity_vote", 4, 0, abstained, votes)


@pytest.mark.parametrize(
    ("total", "rounds", "unit", "expected"),
    [
        (24, 2, 1, (12, 12)),
        (25, 2, 1, (13, 12)),
        (7, 3, 1, (3, 2, 2)),
        (12, 2, 4, (8, 4)),  # three sets of rollouts: two and one
        (10, 2, 4, (8, 2)),  # the last set is not used up
    ],
)
def test_a_budget_is_shared_out(total, rounds, unit, expected):
    assert share_out(total, rounds, unit) == expected
    assert sum(expected) == total


def test_a_round_needs_an_update():
    with pytest.raises(ValueError, match="4 steps are too few for 2 rounds"):
        share_out(4, 2, 4)


def test_the_held_out_share_is_kept_and_grows_with_it():
    keys = [f"{number:016x}" for number in range(4000)]
    tenth = {key for key in keys if is_held_out(key, 0.1)}
    assert 330 < len(tenth) < 470  # 400, four standard deviations of 19
    assert tenth < {key for key in keys if is_held_out(key, 0.2)}
    assert not any(is_held_out(key, 0.0) for key in keys)


def test_labels_are_compared_by_mention_and_by_input():
    before = {"a": label(ADA, BO), "b": label(), "c": label(CY), "only": label(ADA)}
    after = {"a": label(ADA, CY), "b": label(), "c": label(CY)}
    found = compare_labels(before, after)
    # Shared: Ada, Cy. Stated: 2 + 2 in a, 1 + 1 in c. 2 * 2 / 6.
    assert found.agreement == pytest.approx(4 / 6)
    assert (found.changed_share, found.num_inputs) == (pytest.approx(1 / 3), 3)
    assert compare_labels({"b": label()}, {"b": label()}).agreement == 1
    with pytest.raises(ValueError, match="no input in common"):
        compare_labels({"a": label()}, {"b": label()})


def test_votes_agree_with_a_label_by_their_mass():
    votes = label(votes=((ADA, 1.0), (BO, 0.5), (CY, 0.25)))
    # 2 * (1 + 0.5) / (1.75 + 2)
    assert vote_agreement(votes, label(ADA, BO)) == pytest.approx(3 / 3.75)
    # Cy abstains: it counts for neither side.
    assert vote_agreement(votes, label(ADA, BO, abstained=(CY,))) == pytest.approx(3 / 3.5)
    assert vote_agreement(label(), label()) == 1
    assert vote_agreement(label(votes=((ADA, 0.25),)), label()) == 0.75
    assert vote_agreement(votes, label()) == 0


def test_held_out_agreement_is_of_inputs_that_both_rounds_have():
    first = {"a": label(ADA), "b": label(BO)}
    later = {"a": label(votes=((ADA, 0.5),))}
    found = held_out_agreement(first, later, ["a", "b", "c"])
    assert found == {"a": pytest.approx(2 * 0.5 / 1.5)}


def test_a_fall_counts_beyond_two_standard_errors():
    keys = [str(number) for number in range(10)]
    high = dict.fromkeys(keys, 0.8)
    assert not has_fallen(high, high)
    assert not has_fallen(high, dict.fromkeys(keys, 0.9))
    assert has_fallen(high, dict.fromkeys(keys, 0.7))
    # Differences 0.4 and -0.3 in turn: mean 0.05, standard deviation 0.369, error 0.117.
    mixed = {key: 0.4 if number % 2 else 1.1 for number, key in enumerate(keys)}
    assert not has_fallen(high, mixed)
    few = keys[:7]
    assert not has_fallen(dict.fromkeys(few, 0.8), dict.fromkeys(few, 0.1)), "7 inputs tell nothing"
