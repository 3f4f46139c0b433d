"""Our scores against nervaluate: `strict` (range and type) and `exact` (range alone).

They coincide on flat predictions whose types are all listed. The tests at the end show where they
do not, and why ours is what it is.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.mistakes import CharSpan, judge
from ccrl_cli.records import Alignment, Entity, Example, Score, Span
from lazily import lazy, needs

evaluator = lazy("nervaluate.evaluator")

pytestmark = needs("nervaluate")

TYPES = ("x", "y", "z")
LENGTH = 12


@st.composite
def flat_spans(draw):
    """Spans of one sentence that do not overlap."""
    spans, place = [], 0
    while place < LENGTH:
        length = draw(st.integers(0, 3))
        if length and place + length <= LENGTH:
            spans.append(Span(place, place + length, draw(st.sampled_from(TYPES))))
        place += max(1, length)
    return spans


@st.composite
def near(draw):
    """Gold spans and predictions made of them: kept, retyped, moved by a token, or dropped."""
    gold = draw(flat_spans())
    made, taken = [], set()
    for span in gold:
        kind = draw(st.sampled_from(["keep", "keep", "type", "left", "right", "short", "drop"]))
        start = span.start - (kind == "left") + (kind == "right")
        end = span.end - (kind in ("left", "short")) + (kind == "right")
        tokens = set(range(start, end))
        if kind == "drop" or start < 0 or end > LENGTH or not tokens or tokens & taken:
            continue
        taken |= tokens
        name = draw(st.sampled_from(TYPES)) if kind == "type" else span.type
        made.append(Span(start, end, name))
    return gold, made


CORPORA = st.lists(st.one_of(near(), st.tuples(flat_spans(), flat_spans())), min_size=1, max_size=6)


def theirs(gold, predicted, schema, tags=TYPES):
    """Return nervaluate's result; its ends are inclusive."""

    def documents(corpus):
        return [
            [{"label": s.type, "start": s.start, "end": s.end - 1} for s in spans]
            for spans in corpus
        ]

    found = evaluator.Evaluator(
        documents(gold), documents(predicted), tags=list(tags), loader="dict"
    ).evaluate()
    return found["overall"][schema], found["entities"]


def ours(gold, predicted, types=TYPES):
    return score_spans(gold, [Alignment(tuple(spans)) for spans in predicted], types)


def ratios(score: Score):
    # nervaluate says 0 where a ratio has no denominator; so does this reading of our counts.
    found, due = (
        score.true_positives + score.false_positives,
        (score.true_positives + score.false_negatives),
    )
    precision = score.true_positives / found if found else 0
    recall = score.true_positives / due if due else 0
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0


def agrees(score, result):
    assert score.true_positives == result.correct
    assert score.true_positives + score.false_positives == result.actual
    assert score.true_positives + score.false_negatives == result.possible
    assert ratios(score) == pytest.approx((result.precision, result.recall, result.f1))


@given(CORPORA)
def test_micro_scores_equal_the_strict_schema(corpus):
    gold, predicted = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    agrees(ours(gold, predicted).micro, theirs(gold, predicted, "strict")[0])


@given(CORPORA)
def test_scores_by_type_equal_the_strict_schema(corpus):
    gold, predicted = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    _, by_type = theirs(gold, predicted, "strict")
    result = ours(gold, predicted)
    for name, schemas in by_type.items():
        agrees(result.per_type[name], schemas["strict"])
    assert set(by_type) == {name for name, score in result.per_type.items() if score != Score()}


@given(CORPORA)
def test_scores_without_types_equal_the_exact_schema(corpus):
    gold, predicted = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    bare = [[[Span(s.start, s.end, "x") for s in spans] for spans in side]
            for side in (gold, predicted)]  # fmt: skip
    agrees(ours(*bare).micro, theirs(gold, predicted, "exact")[0])


@given(CORPORA)
def test_stored_predictions_score_as_the_spans_did(corpus):
    total = Score()
    for gold, predicted in corpus:
        found = judge([CharSpan(s.start, s.end, s.type) for s in gold],
                      [CharSpan(s.start, s.end, s.type) for s in predicted])  # fmt: skip
        right = found.num_right
        total += Score(right, len(found.predicted) - right, len(found.gold) - right)
    gold, predicted = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    assert total == ours(gold, predicted).micro


ADVERSARIAL = {
    "nothing": [],
    "the whole sentence": [Span(0, LENGTH, "x")],
    "every token": [Span(i, i + 1, TYPES[i % 3]) for i in range(LENGTH)],
    "every token but the first": [Span(i, i + 1, "y") for i in range(1, LENGTH)],
    "one span too long on both sides": [Span(1, 7, "x")],
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_predictions(name):
    rng = random.Random(0)
    gold = [
        [Span(start, start + rng.randint(1, 2), rng.choice(TYPES)) for start in range(0, 10, 3)]
        for _ in range(50)
    ]
    predicted = [ADVERSARIAL[name]] * 50
    agrees(ours(gold, predicted).micro, theirs(gold, predicted, "strict")[0])


def test_nothing_against_nothing_is_1_here_and_0_there():
    # A model that rightly says nothing must not be told that it was wrong.
    assert ours([[]], [[]]).micro.f1 == 1
    assert theirs([[]], [[]], "strict")[0].f1 == 0


def test_types_outside_the_list_are_wrong_here_and_invisible_there():
    gold, predicted = [[Span(0, 1, "x")]], [[Span(0, 1, "x"), Span(2, 3, "made up")]]
    assert theirs(gold, predicted, "strict")[0].f1 == 1
    # P = 1/2, R = 1
    assert ours(gold, predicted).micro.f1 == pytest.approx(2 / 3)


def test_mentions_that_the_text_does_not_hold_are_wrong_here_and_have_no_place_there():
    example = Example("Mars shines", *tokenize("Mars shines"), gold=(Span(0, 1, "x"),))
    alignment = Aligner(example).align([Entity("Mars", "x"), Entity("Venus", "x")])
    assert theirs([example.gold], [alignment.spans], "strict")[0].f1 == 1
    assert score_spans([example.gold], [alignment], TYPES).micro.f1 == pytest.approx(2 / 3)


def test_overlapping_predictions_depend_on_their_order_there():
    # The first one takes the gold span as "incorrect", and the right one finds none left.
    gold = [[Span(0, 2, "x")]]
    wrong, right = Span(0, 1, "x"), Span(0, 2, "x")
    assert theirs(gold, [[right, wrong]], "strict")[0].correct == 1
    assert theirs(gold, [[wrong, right]], "strict")[0].correct == 0
    for order in ([right, wrong], [wrong, right]):
        assert ours(gold, [order]).micro == Score(1, 1, 0)


def test_exact_means_another_thing_there():
    gold, predicted = [[Span(0, 1, "x")]], [[Span(0, 1, "y")]]
    assert theirs(gold, predicted, "exact")[0].f1 == 1
    assert theirs(gold, predicted, "strict")[0].f1 == ours(gold, predicted).micro.f1 == 0
