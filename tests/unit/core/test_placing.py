from __future__ import annotations

import pytest

from ccrl_cli.core.alignment import Aligner, cut_tokens, folded_key, mention_key, tokenize
from ccrl_cli.core.placing import TextIndex, TextPlacer, align_in_text, graphemes, view_for
from ccrl_cli.records import Entity, Example, Span


def example(text, gold=None):
    return Example(text, *tokenize(text), gold)


def places(text, *mentions):
    found = TextPlacer(example(text)).place(mentions)
    return [p and text[p.start : p.end] for p in found]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("수진은 대전에서 왔다.", "대전"),
        ("Yarın İzmirden dönecek.", "İzmir"),
        ("Pécsen lakik.", "Pécs"),
        ("وصل وسليم إلى دمشق", "سليم"),
        ("הוא נסע לירושלים", "ירושלים"),
        ("वह दिल्लीमें है", "दिल्ली"),
        ("Eine Elbefahrt.", "Elbe"),
        ("Lähti Tampereelta.", "Tampere"),
    ],
)
def test_a_name_with_an_ending_or_prefix_is_found_inside_its_word(text, mention):
    (place,) = TextPlacer(example(text)).place([mention])
    assert (text[place.start : place.end], place.inside, place.folded) == (mention, True, False)


def test_whole_words_go_before_places_inside_one():
    # "Ann" stands inside "Annabel" first, and as a word later
    (place,) = TextPlacer(example("Annabel saw Ann")).place(["Ann"])
    assert (place.start, place.end, place.inside) == (12, 15, False)


def test_an_ending_goes_before_a_prefix_and_both():
    # Oslo inside, with a prefix, with an ending: the ending is the likeliest
    (place,) = TextPlacer(example("xOslox xOslo Oslox")).place(["Oslo"])
    assert place.start == 13


def test_exact_goes_before_folded_and_folded_is_counted():
    view, alignment = align_in_text(
        [Entity("ROME", "x"), Entity("Rome", "x")], example("Rome and rome")
    )
    assert alignment.spans == (Span(0, 1, "x"), Span(2, 3, "x"))
    assert (alignment.num_folded, alignment.num_inside, alignment.hallucinated) == (1, 0, ())
    assert [view.span_text(span) for span in alignment.spans] == ["Rome", "rome"]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("the Queen’s Speech", "Queen's Speech"),
        ("the “Blue” line", '"Blue"'),
        ("Baden–Baden", "Baden-Baden"),
        ("Aspirin helps", "aspirin"),
        ("ΑΘΗΝΑ 2004", "Αθήνα"),
        ("İZMİR", "izmir"),
    ],
)
def test_case_quotes_and_dashes_are_folded(text, mention):
    (place,) = TextPlacer(example(text)).place([mention])
    assert place.folded


def test_letters_are_not_folded_into_others():
    # a dot above is a letter of its own in Polish
    assert places("zaba", "żaba") == [None]


@pytest.mark.parametrize(
    ("text", "mention"),
    [
        ("Ham\u00adburg grows", "Hamburg"),
        ("New\u200bYork wins", "NewYork"),
        ("Bo\u200e Lee", "Bo Lee"),
        ("I \u2764\ufe0f NY", "\u2764"),
        ("می\u200cخواهم", "میخواهم"),
    ],
)
def test_invisible_characters_do_not_matter(text, mention):
    (place,) = TextPlacer(example(text)).place([mention])
    assert place is not None
    assert not place.folded
    assert mention_key(text[place.start : place.end]) == mention_key(mention)


def test_a_longer_mention_inside_words_moves_a_shorter_one_that_can_stand_elsewhere():
    # "Rio" is placed at its word first; "Rio Sul" stands only there, with an ending
    assert places("Rio Suleste, Riofest", "Rio", "Rio Sul") == ["Rio", "Rio Sul"]
    found = TextPlacer(example("Rio Suleste, Riofest")).place(["Rio", "Rio Sul"])
    assert [(place.start, place.end) for place in found] == [(13, 16), (0, 7)]


def test_a_place_is_never_inside_a_character_as_seen():
    assert places("Zu\u0308rich", "Zu") == [None]
    assert places("👩‍🚀x", "👩") == [None]
    assert graphemes("e\u0301x🇩🇪🇫🇷") == [(0, 2), (2, 3), (3, 5), (5, 7)]


def test_cutting_keeps_gold_and_is_undone_without_gold():
    text = example("Izmirden Bursa", (Span(1, 2, "city"),))
    view = cut_tokens(text, [5])
    assert view.tokens == ("Izmir", "den", "Bursa")
    assert (view.gold, view.cuts) == ((Span(2, 3, "city"),), (5,))
    assert view.without_gold() == text.without_gold()
    assert cut_tokens(text, [0, 8, 14, 99]) is text


def test_where_gold_cuts_a_word_is_no_boundary_for_answers():
    # gold cuts the first word; an answer still goes to the whole word, as predict places it
    text = cut_tokens(example("Izmirden Izmir", ()), [5])
    (place,) = TextPlacer(text).place(["Izmir"])
    assert place.start == 9


def test_a_view_has_tokens_for_every_mention_that_stands_in_the_text():
    text = example("Izmirden gelen")
    view = view_for(text, [Entity("Izmir", "x"), Entity("nowhere", "x"), Entity("IZMIR", "x")])
    assert Aligner(view).place(["Izmir", "nowhere", "IZMIR"]) == [(0, 1, 1), None, None]
    assert view_for(text, [Entity("gelen", "x")]) is text


def test_ranges_are_carried_to_another_spelling_of_the_same_text():
    left, right = TextIndex("이 름 은 대 전"), TextIndex("이름은 대전")
    assert left.condensed == right.condensed
    assert left.carry(6, 9, right) == (4, 6)
    assert TextIndex("a b").carry(1, 2, TextIndex("ab")) is None


def test_folding_is_by_key():
    assert folded_key("Queen’s") == folded_key("QUEEN'S")
    assert folded_key("żaba") != folded_key("zaba")
