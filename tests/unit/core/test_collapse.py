"""Rules of collapse and the choice of the best policy, on records made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.collapse import RULES, BestPolicy, CollapseGuard, GuardLimits

SOUND = {
    "loss": 0.1,
    "gradient_norm": 0.5,
    "reward": 0.6,
    "entities": 1.4,
    "label_entities": 1.5,
    "invalid_share": 0.05,
    "wrong_empty_share": 0.1,
    "stuck_share": 0.2,
    "kl": 0.01,
    "source_f1": 0.5,
}


def judged(rows: list[dict]) -> list[str | None]:
    guard = CollapseGuard(GuardLimits())
    alarms = [guard.observe({**SOUND, **row, "step": n}) for n, row in enumerate(rows, 1)]
    return [alarm.rule if alarm else None for alarm in alarms]


def test_one_rare_token_does_not_stop_a_training():
    assert judged([{"kl": 1.0, "kl_median": 0.05}] * 3) == [None] * 3


@pytest.mark.parametrize(
    ("rule", "bad", "rows"),
    [
        ("not-finite", {"loss": math.nan}, 1),
        ("not-finite", {"gradient_norm": math.inf}, 1),
        ("kl", {"kl": 0.51}, 1),
        ("kl", {"kl": 0.1, "kl_median": 0.51}, 1),
        ("source-drop", {"source_f1": 0.34}, 2),
        ("invalid", {"invalid_share": 0.51}, 3),
        ("zero-spread", {"stuck_share": 0.61}, 3),
        ("entities-collapse", {"entities": 0.44}, 3),
        ("entities-explode", {"entities": 6.1}, 3),
        ("empty", {"wrong_empty_share": 0.51}, 3),
    ],
)
def test_a_rule_fires_after_its_window_and_not_before(rule, bad, rows):
    assert judged([{}, *[bad] * rows]) == [None] * rows + [rule]
    if rows > 1:  # one good step in between starts the count anew
        assert set(judged([{}, *[bad] * (rows - 1), {}, *[bad] * (rows - 1)])) == {None}


def test_limits_themselves_are_allowed():
    at = {
        "invalid_share": 0.5,
        "stuck_share": 0.6,
        "entities": 6.0,
        "kl": 0.5,
        "source_f1": 0.36,
        "wrong_empty_share": 0.5,
    }
    assert set(judged([{}, *[at] * 9])) == {None}


def test_what_was_seen_in_practice_is_stopped():
    """16 sentences, 5e-5: entities an answer 1.4 -> 0.25, zero spread 0.63 within eight steps."""
    entities = [1.4, 1.3, 1.1, 0.7, 0.4, 0.35, 0.3, 0.25]
    stuck = [0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.63]
    rows = [{"entities": e, "stuck_share": s} for e, s in zip(entities, stuck, strict=True)]
    assert judged(rows)[6] == "entities-collapse"
    # Source F1 57 -> 36 in 24 steps.
    probes = [{"source_f1": f1} for f1 in (0.57, 0.50, 0.43, 0.40, 0.36)]
    assert judged(probes)[3] is None
    assert judged(probes)[4] == "source-drop"


def test_a_fall_that_a_few_sentences_explain_does_not_count():
    # Four sentences, of which one is now missed: F1 1, 1, 0.5, 0 and before that 1, 1, 0.5, 1.
    probes = [{"source_f1": f1, "source_drop_error": 0.24} for f1 in (0.875, 0.625, 0.625)]
    assert set(judged(probes)) == {None}
    gone = [{"source_f1": f1, "source_drop_error": 0.0} for f1 in (0.875, 0.0, 0.0)]
    assert judged(gone)[-1] == "source-drop"


def test_a_model_that_starts_unreadable_and_learns_is_left_alone():
    falling = [{"invalid_share": 0.9 - 0.05 * n} for n in range(12)]
    assert set(judged(falling)) == {None}
    assert judged([{"invalid_share": 0.9}] * 3)[-1] == "invalid"


def test_empty_answers_to_empty_labels_are_no_collapse():
    assert set(judged([{"entities": 0.0, "label_entities": 0.0}] * 9)) == {None}


def test_a_start_that_names_less_than_its_labels_has_not_collapsed():
    """The surest labels of a stage may hold far more than the policy ever wrote."""
    row = {"entities": 1.8, "label_entities": 6.4}
    assert judged([row] * 3)[-1] == "entities-collapse"
    assert set(judged([{**row, "entities_before": 2.2}] * 9)) == {None}
    assert judged([{**row, "entities": 0.6, "entities_before": 2.2}] * 3)[-1] == "entities-collapse"


def test_a_start_that_names_more_than_its_labels_has_not_exploded():
    row = {"entities": 6.0, "label_entities": 1.2}
    assert judged([row] * 3)[-1] == "entities-explode"
    assert set(judged([{**row, "entities_before": 5.0}] * 9)) == {None}
    assert judged([{**row, "entities_before": 1.4}] * 3)[-1] == "entities-explode"


def test_rules_stand_still_without_their_values():
    guard = CollapseGuard(GuardLimits(window=2))
    bad = {"stuck_share": 1.0}
    assert guard.observe({"step": 1, **bad}) is None
    assert guard.observe({"step": 2, "loss": 0.0}) is None  # an update on rollouts drawn before
    assert guard.observe({"step": 3, **bad}).rule == "zero-spread"


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match="window"):
        replace(GuardLimits(), window=0)


shares = st.floats(0, 1)
rows = st.fixed_dictionaries(
    {
        "invalid_share": shares,
        "stuck_share": shares,
        "wrong_empty_share": shares,
        "source_f1": shares,
        "source_drop_error": st.floats(0, 0.5),
        "entities": st.floats(0, 20),
        "label_entities": st.floats(0, 5),
        "entities_before": st.floats(0, 5),
        "kl": st.floats(0, 2),
        "loss": st.floats(),
    }
)


@given(st.lists(rows, max_size=12), st.integers(0, 11))
def test_a_guard_goes_on_from_its_state(values, cut):
    """What is judged does not depend on a stop in between; the state is plain JSON."""
    whole, first = CollapseGuard(GuardLimits()), CollapseGuard(GuardLimits())
    expected = [whole.observe({**row, "step": n}) for n, row in enumerate(values)]
    found = [first.observe({**row, "step": n}) for n, row in enumerate(values[:cut])]
    second = CollapseGuard(GuardLimits())
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    found += [second.observe({**row, "step": n}) for n, row in enumerate(values[cut:], cut)]
    assert found == expected
    assert all(alarm is None or alarm.rule in RULES for alarm in expected)


def test_the_best_policy_is_the_highest_smoothed_score():
    best = BestPolicy(smoothing=1.0)
    offers = [best.offer(step, score, 0.1) for step, score in enumerate((0.3, 0.5, 0.4, 0.6, 0.1))]
    assert offers == [True, True, False, True, False]
    assert (best.step, best.score) == (3, 0.6)


def test_one_lucky_probe_counts_half():
    best = BestPolicy(smoothing=0.5)
    best.offer(0, 0.5, 0.0)
    assert best.offer(1, 0.9, 0.1)
    assert best.score == pytest.approx(0.7)
    assert not best.offer(2, 0.5, 0.1)


def test_among_equals_the_nearer_to_the_start_wins():
    best = BestPolicy(smoothing=1.0, tolerance=0.01)
    best.offer(0, 0.500, 0.2)
    assert not best.offer(1, 0.505, 0.3)
    assert best.offer(2, 0.497, 0.1)
    assert not best.offer(3, 0.505, None)


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_scores_that_are_not_finite_are_never_the_best(scores):
    best = BestPolicy()
    taken = [step for step, score in enumerate(scores) if best.offer(step, score, 0.1)]
    assert all(math.isfinite(scores[step]) for step in taken)
    copy = BestPolicy()
    copy.load_state_dict(json.loads(json.dumps(best.state_dict())))
    assert copy.offer(99, 0.5, 0.0) == best.offer(99, 0.5, 0.0)
