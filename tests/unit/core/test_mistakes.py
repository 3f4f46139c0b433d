"""Kinds of mistakes in a sentence, and texts cut at spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.metrics import score_spans
from ccrl_cli.core.mistakes import CharSpan, JudgedSpan, judge, segments
from ccrl_cli.core.pieces import split_text
from ccrl_cli.records import Alignment, Entity, Span

#        0123456789012345678901234
TEXT = "NASA sent Juno to Jupiter"
AGENCY, PROBE, PLANET = (
    CharSpan(0, 4, "agency"),
    CharSpan(10, 14, "probe"),
    CharSpan(18, 25, "planet"),
)


def verdicts(spans):
    return [(item.span.start, item.verdict) for item in spans]


def test_every_kind_of_mistake():
    predicted = [
        CharSpan(0, 4, "company"),  # the range of NASA, another type
        CharSpan(10, 17, "probe"),  # "Juno to": overlaps Juno
        CharSpan(5, 9, "probe"),  # "sent": nothing there
    ]
    found = judge([PLANET, AGENCY, PROBE], predicted, num_hallucinated=1)
    assert verdicts(found.gold) == [(0, "type"), (10, "boundary"), (18, "missed")]
    assert verdicts(found.predicted) == [(0, "type"), (5, "spurious"), (10, "boundary")]
    assert found.num_wrong == 3 + 3 + 1
    assert found.num_right == 0


def test_right_spans_are_right_on_both_sides():
    found = judge([AGENCY, PROBE], [PROBE, AGENCY])
    assert verdicts(found.gold) == verdicts(found.predicted) == [(0, "right"), (10, "right")]
    assert (found.num_wrong, found.num_right) == (0, 2)


def test_segments_join_to_the_text():
    spans = judge([AGENCY, PLANET], [AGENCY, PLANET]).gold
    pieces = segments(TEXT, spans)
    assert [(p.text, p.span is not None) for p in pieces] == [
        ("NASA", True),
        (" sent Juno to ", False),
        ("Jupiter", True),
    ]


def test_a_span_inside_another_or_beyond_the_text_is_left_out():
    spans = [
        JudgedSpan(CharSpan(0, 9, "a"), "right"),
        JudgedSpan(CharSpan(5, 9, "b"), "right"),
        JudgedSpan(CharSpan(20, 99, "c"), "right"),
    ]
    assert [p.span.span.type for p in segments(TEXT, spans) if p.span] == ["a"]


spans_ = st.lists(
    st.builds(
        lambda start, length, kind: CharSpan(start, start + length, kind),
        st.integers(0, 12),
        st.integers(1, 5),
        st.sampled_from("ab"),
    ),
    max_size=6,
)


@given(spans_, spans_)
def test_mistakes_are_the_false_positives_and_negatives_of_the_scores(gold, predicted):
    gold, predicted = list(dict.fromkeys(gold)), list(dict.fromkeys(predicted))
    found = judge(gold, predicted, 2)
    micro = score_spans(
        [[Span(s.start, s.end, s.type) for s in gold]],
        [
            Alignment(
                tuple(Span(s.start, s.end, s.type) for s in predicted), (Entity("x", "a"),) * 2
            )
        ],
        ["a", "b"],
    ).micro
    assert found.num_wrong == micro.false_positives + micro.false_negatives
    assert found.num_right == micro.true_positives


@given(st.text(max_size=20), spans_)
def test_segments_never_lose_a_character(text, spans):
    pieces = segments(text, judge(spans, []).gold)
    assert "".join(piece.text for piece in pieces) == text


# --- pieces of long texts -----------------------------------------------------------------------


def test_a_short_text_is_one_piece_and_an_empty_one_none():
    assert split_text("One. Two.", 20) == ((0, 9),)
    assert split_text("", 20) == ()


def test_the_cut_is_at_the_last_sentence_end_that_fits():
    text = "One two. Three four. Five six."
    # 25 characters reach into "Five": the last sentence end before it is at 21.
    assert [text[a:b] for a, b in split_text(text, 25)] == ["One two. Three four. ", "Five six."]


def test_without_a_sentence_end_it_is_a_space_and_without_one_the_limit():
    assert [a for a, _ in split_text("alpha beta gamma", 12)] == [0, 11]
    assert split_text("x" * 25, 10) == ((0, 10), (8, 18), (16, 25))  # a quarter overlaps


def test_chinese_sentences_end_without_a_space():
    text = "一二三。四五六。七八九。"
    assert [text[a:b] for a, b in split_text(text, 9)] == ["一二三。四五六。", "七八九。"]


def test_a_piece_must_hold_something():
    with pytest.raises(ValueError, match="0 characters"):
        split_text("a", 0)


@given(st.text(max_size=300), st.integers(1, 40))
def test_pieces_cover_the_text_in_order_within_the_limit(text, limit):
    ranges = split_text(text, limit)
    covered = 0
    for a, b in ranges:
        assert a <= covered < b <= a + limit
        covered = b
    assert covered == len(text)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("王芳昨天从北京飞到，上海虹桥机场。", ["王芳昨天从北京飞到，", "上海虹桥机场。"]),
        ("वह दिल्ली में है। राम घर पर है।", ["वह दिल्ली में है। ", "राम घर पर है।"]),
        ("alpha, beta gamma", ["alpha, ", "beta gamma"]),
        ("He said (no.)x yes.", ["He said ", "(no.)x yes."]),
    ],
)
def test_stops_and_commas_of_many_scripts_are_breaks(text, pieces):
    assert [text[a:b] for a, b in split_text(text, 19 if "वह" in text else 13)] == pieces


def test_a_cut_without_a_break_keeps_a_name_whole_in_one_piece():
    text = "ก" * 90 + "กรุงเทพ" + "ข" * 90
    pieces = [text[a:b] for a, b in split_text(text, 94)]
    assert any("กรุงเทพ" in piece for piece in pieces)


def test_no_cut_is_inside_a_character_as_seen():
    text = "e\u0301" * 30
    assert all(a % 2 == 0 and b % 2 == 0 for a, b in split_text(text, 9))


def test_an_overlap_that_fills_a_piece_is_given_up():
    # one character as seen is longer than what the overlap leaves of a piece
    text = "दिल्लीमें\u200d👩\u200d🚀"
    covered = 0
    for a, b in split_text(text, 7):
        assert a <= covered < b
        covered = b
    assert covered == len(text)
