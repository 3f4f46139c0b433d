"""Refresh of confidence and guarded label flips."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.agreement import Labeller
from ccrl_cli.core.refresh import Refresher, RefreshSettings
from ccrl_cli.records import Entity, Parse

A, B = Entity("Ada", "person"), Entity("Bonn", "city")
VOTE = Labeller(rule="entity_vote", metric="entity_vote", positive=0.5, negative=0.25)
MAJORITY = Labeller(rule="majority", metric="self_consistency")


def answers(*groups):
    """Return completions: (number, entities) each."""
    return [Parse("valid", tuple(entities)) for number, *entities in groups for _ in range(number)]


def make(labeller=VOTE, start=((4, A),), **changes):
    parses = answers(*start)
    labels = {"x": labeller("x", parses, [None] * len(parses))}
    return Refresher(labels, labeller, RefreshSettings(**{"every_steps": 5, **changes}))


def see(refresher, *groups, step=5):
    parses = answers(*groups)
    refresher.observe("x", parses, [None] * len(parses))
    return refresher.refresh(step)


def test_an_entity_enters_after_its_share_rose_over_the_window():
    refresher = make()
    # Share of B: 0 in the store, then 2/4, then 3/4: two rises, and above one half.
    assert not see(refresher, (2, A, B), (2, A)).labels
    assert refresher.labels["x"].entities == (A,)
    refreshed = see(refresher, (3, A, B), (1, A), step=10)
    assert refreshed.labels["x"].entities == (A, B)
    flip, summary = refreshed.records
    assert flip == {
        "step": 10,
        "kind": "flip",
        "input_id": "x",
        "source": "rollouts",
        "before": [["Ada", "person"]],
        "after": [["Ada", "person"], ["Bonn", "city"]],
        "shares": [["Bonn", "city", [0.0, 0.5, 0.75]]],
        # Votes of the kept: A 4/4 before; A 4/4 and B 3/4 after, mean 0.875.
        "confidence_before": 1.0,
        "confidence_after": 0.875,
    }
    assert (summary["kind"], summary["flips"], summary["estimated"]) == ("refresh", 1, 1)
    json.dumps(refreshed.records)


def test_a_single_jump_changes_nothing():
    refresher = make()
    refreshed = see(refresher, (4, B))
    assert not refreshed.labels
    assert refresher.labels["x"].entities == (A,)
    # The evidence holds no A at all: the label stays, and nobody is sure of it.
    assert refreshed.confidence["x"] == 0.0


def test_a_share_that_falls_back_once_starts_anew():
    refresher = make()
    # B: 0, 3/4, 2/4, 3/4: no two refreshes in a row without a fall.
    for groups in (((3, A, B), (1, A)), ((2, A, B), (2, A)), ((3, A, B), (1, A))):
        assert not see(refresher, *groups).labels
    # 2/4, 3/4, 4/4.
    assert see(refresher, (4, A, B)).labels["x"].entities == (A, B)


def test_an_entity_leaves_after_its_share_fell_over_the_window():
    refresher = make(start=((4, A, B),))
    # B: 1, 1/4, 0.
    assert not see(refresher, (1, A, B), (3, A)).labels
    assert see(refresher, (4, A)).labels["x"].entities == (A,)


def test_with_entity_votes_each_entity_is_judged_alone():
    refresher = make(start=((4, A),))
    # A falls 1, 1/2, 0 over two refreshes; B jumps in at the last one: A leaves, B has to wait.
    see(refresher, (2, A), (2,))
    refreshed = see(refresher, (4, B))
    assert refreshed.labels["x"].entities == ()
    assert refreshed.confidence["x"] == 0.0  # no answer was empty


def test_a_majority_answer_changes_as_a_whole_or_not_at_all():
    refresher = make(MAJORITY, start=((3, A), (1, A, B)))
    # B rises 1/4, 2/4, 3/4; A never falls, and stays in both answers.
    assert not see(refresher, (2, A, B), (2, A)).labels
    refreshed = see(refresher, (3, A, B), (1, A))
    assert refreshed.labels["x"].entities == (A, B)
    assert refreshed.confidence["x"] == 0.75
    # Now another answer takes over at once: B is replaced by nothing that rose.
    other = Entity("Cairo", "city")
    after = see(refresher, (3, other), (1, A, B))
    assert not after.labels
    assert after.confidence["x"] == 0.25  # one of four still says the label


def test_confidence_is_estimated_without_a_flip_too():
    refresher = make(MAJORITY, start=((4, A),))
    assert see(refresher, (3, A), (1,)).confidence["x"] == 0.75


def test_too_little_evidence_waits_for_the_next_refresh():
    refresher = make(MAJORITY, start=((4, A),), min_completions=4)
    refreshed = see(refresher, (2,))
    assert refreshed.confidence["x"] == 1.0
    assert refreshed.records[-1]["estimated"] == 0
    # Two empty ones are still there: 2 of 4 say A.
    assert see(refresher, (2, A)).confidence["x"] == 0.5


def test_type_posterior_keeps_its_confidence():
    parses = answers((4, A))
    labeller = Labeller(rule="entity_vote", metric="type_posterior")
    known = {("Ada", "person"): 0.8}
    labels = {"x": labeller("x", parses, [None] * 4, known)}
    refresher = Refresher(labels, labeller, RefreshSettings(5))
    assert see(refresher, (4, B)).confidence["x"] == 0.0  # the evidence holds no A
    refresher = Refresher(labels, labeller, RefreshSettings(5))
    assert see(refresher, (4, A)).confidence["x"] == 0.8


def test_due_steps():
    refresher = make(every_steps=3)
    assert [step for step in range(8) if refresher.is_due(step)] == [3, 6]
    assert not any(make(every_steps=0).is_due(step) for step in range(8))


def test_strangers_and_bad_settings_are_refused():
    with pytest.raises(KeyError):
        make().observe("y", [], [])
    with pytest.raises(ValueError, match="shorter"):
        make().observe("x", answers((2, A)), [None])
    with pytest.raises(ValueError, match="'live' is not one of rollouts"):
        RefreshSettings(1, source="live")
    with pytest.raises(ValueError, match="at least"):
        RefreshSettings(1, window=0)
    with pytest.raises(ValueError, match="other inputs"):
        make().load_state_dict({"labels": {"y": {}}})


GROUPS = st.lists(
    st.lists(
        st.one_of(
            st.lists(st.sampled_from([A, B, Entity("Ada", "city")]), max_size=3).map(
                lambda entities: Parse("valid", tuple(entities))
            ),
            st.just(Parse("invalid")),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


@given(GROUPS, st.sampled_from([VOTE, MAJORITY]), st.integers(0, 5), st.integers(1, 3))
def test_a_saved_state_goes_on_the_same_way(groups, labeller, cut, window):
    def fresh():
        return make(labeller, start=((4, A),), window=window)

    straight, first = fresh(), fresh()
    expected = []
    for parses in groups:
        straight.observe("x", parses, [-0.5] * len(parses))
        expected.append(straight.refresh(5))
    for parses in groups[:cut]:
        first.observe("x", parses, [-0.5] * len(parses))
        first.refresh(5)
    resumed = fresh()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for parses, wanted in zip(groups[cut:], expected[cut:], strict=False):
        resumed.observe("x", parses, [-0.5] * len(parses))
        assert resumed.refresh(5) == wanted


@given(GROUPS, st.sampled_from([VOTE, MAJORITY]), st.integers(1, 3))
def test_no_label_changes_before_the_window_is_full(groups, labeller, window):
    refresher = make(labeller, window=window, min_completions=1)
    for number, parses in enumerate(groups, start=1):
        refresher.observe("x", parses, [None] * len(parses))
        refreshed = refresher.refresh(number)
        if number < window:
            assert not refreshed.labels
        flips = [record for record in refreshed.records if record["kind"] == "flip"]
        assert {record["input_id"] for record in flips} == set(refreshed.labels)
        for record in flips:
            for _, _, shares in record["shares"]:
                assert len(shares) == window + 1
                assert shares in (sorted(shares), sorted(shares, reverse=True))
                assert shares[0] != shares[-1]
        assert 0 <= refreshed.confidence["x"] <= 1


# --- types asked for again ------------------------------------------------------------------------

TYPED = Labeller(rule="entity_vote", metric="type_posterior", positive=0.5, negative=0.25)


def typed(window=1):
    parses = answers((3, A), (1,))
    label = TYPED("x", parses, [None] * 4, {("Ada", "person"): 0.6})
    settings = RefreshSettings(5, window, "ema", 4)
    return Refresher(
        {"x": label}, TYPED, settings, {"x": {"Ada": "person"}}, {"x": {("Ada", "person"): 0.6}}
    )


def test_confidence_by_types_stays_where_nobody_was_asked_for_types():
    refresher = typed()
    assert refresher.labels["x"].confidence == 0.6
    assert see(refresher, (4, A)).confidence["x"] == 0.6
    assert refresher.labels["x"].votes == ((A, 1.0),)


def test_renewed_types_move_confidence_and_label():
    """A teacher now calls Ada a city: her old type falls from 3/4 to 0, the new one rises."""
    refresher = typed()
    refresher.renew_types({"x": {"Ada": "city"}}, {"x": {("Ada", "city"): 0.9}})
    refreshed = see(refresher, (4, A))
    assert refreshed.labels["x"].entities == (Entity("Ada", "city"),)
    assert refreshed.confidence["x"] == 0.9
    assert refresher.posteriors["x"] == {("Ada", "city"): 0.9}
    # What was said once is not said again: the next refresh without types keeps the confidence.
    assert see(refresher, (2, A), (2,)).confidence["x"] == 0.9


def test_the_window_holds_renewed_types_back():
    refresher = typed(window=2)
    for share, changed in ((0.5, False), (0.75, True)):
        refresher.renew_types({"x": {"Ada": "city"}}, {"x": {("Ada", "city"): 0.9}})
        some = int(4 * share)
        refreshed = see(refresher, (some, A), (4 - some,))
        assert bool(refreshed.labels) is changed
    assert refresher.labels["x"].entities == (Entity("Ada", "city"),)


def renewed(refresher, *groups, kind="city", sure=0.9):
    refresher.renew_types({"x": {"Ada": kind}}, {"x": {("Ada", kind): sure}})
    return see(refresher, *groups)


def test_a_span_that_keeps_its_votes_changes_type_at_once():
    """Its old type must not leave before the new one may enter: nothing would be left."""
    refresher = typed(window=2)
    assert not renewed(refresher, (3, A), (1,)).labels
    assert refresher.labels["x"].entities == (A,)
    assert renewed(refresher, (3, A), (1,)).labels["x"].entities == (Entity("Ada", "city"),)


def test_a_type_that_was_named_once_changes_nothing():
    refresher = typed(window=2)
    for kind in ("city", "person", "city", "person"):
        assert not renewed(refresher, (3, A), (1,), kind=kind).labels
    assert refresher.labels["x"].entities == (A,)


def test_a_span_without_votes_leaves_under_whatever_type():
    refresher = typed(window=2)
    assert not renewed(refresher, (1, A), (3,)).labels
    assert renewed(refresher, (1, A), (3,)).labels["x"].entities == ()


def test_evidence_of_types_is_part_of_the_state():
    one, other = typed(), typed()
    renewed(one, (3, A), (1,))
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.posteriors == one.posteriors == {"x": {("Ada", "city"): 0.9}}
    assert see(other, (4, A)).confidence == see(one, (4, A)).confidence
    assert other.labels == one.labels


def test_votes_of_another_model_are_no_history():
    """A label by another model: what the policy says first is where its votes begin."""
    parses = answers((4, A))
    labels = {"x": VOTE("x", parses, [None] * 4)}
    refresher = Refresher(labels, VOTE, RefreshSettings(5, 1, "ema", 4), comparable=False)
    assert not see(refresher, (2, A, B), (1, A), (1, B)).labels  # B at 3/4 from 0 in the store
    assert see(refresher, (4, A, B)).labels["x"].entities == (A, B)


def test_mentions_that_a_text_has_no_place_for_are_no_disagreement():
    parses = answers((3, A, B), (1, A))
    label = MAJORITY("x", parses, [None] * 4)
    fitted = replace(label, entities=(A,))
    settings = RefreshSettings(5, 1, "ema", 4)
    refresher = Refresher(
        {"x": fitted}, MAJORITY, settings, fitted=lambda v: replace(v, entities=(A,))
    )
    refreshed = see(refresher, (3, A, B), (1, A))
    assert not refreshed.labels
    assert refreshed.confidence["x"] == label.confidence == 0.75


def test_types_of_a_stranger_are_refused():
    with pytest.raises(KeyError, match="y"):
        typed().renew_types({"y": {}}, {})
    with pytest.raises(KeyError, match="y"):
        typed().renew_types({}, {"y": {}})
