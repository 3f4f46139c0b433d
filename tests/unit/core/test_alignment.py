import pytest

from ccrl_cli.core.alignment import (
    Aligner,
    bio_to_spans,
    mention_key,
    spans_to_bio,
    tokenize,
)
from ccrl_cli.records import Alignment, Entity, Example, Span


def example(text):
    return Example(text, *tokenize(text))


def from_tokens(*tokens):
    offsets, position = [], 0
    for token in tokens:
        offsets.append((position, position + len(token)))
        position += len(token) + 1
    return Example(" ".join(tokens), tokens, tuple(offsets))


def align(text, *mentions):
    return Aligner(example(text)).align([Entity(*mention) for mention in mentions])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("  \n", []),
        ("Obama's visit.", ["Obama", "'", "s", "visit", "."]),
        ("New York-based U.S.", ["New", "York", "-", "based", "U", ".", "S", "."]),
        ("3.5 1,000 2019-20 1'000 4th 3.", ["3.5", "1,000", "2019-20", "1'000", "4th", "3", "."]),
        ("a--b (c)...", ["a", "-", "-", "b", "(", "c", ")", ".", ".", "."]),
        ("B2B snake_case", ["B2B", "snake_case"]),
        ("Zürich, Łódź", ["Zürich", ",", "Łódź"]),
        ("Zu\u0308rich cafe\u0301s", ["Zu\u0308rich", "cafe\u0301s"]),
        ("नरेन्द्र मोदी", ["नरेन्द्र", "मोदी"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩\u200d🚀!", ["👩\u200d🚀", "!"]),
        ("東京へ2020年", ["東", "京", "へ", "2020", "年"]),
        ("กรุงเทพ", ["ก", "รุ", "ง", "เ", "ท", "พ"]),
    ],
)
def test_tokenize(text, tokens):
    found, offsets = tokenize(text)
    assert list(found) == tokens
    assert [text[start:end] for start, end in offsets] == tokens


def test_mentions_are_placed_left_to_right():
    # 0 Ann  1 met  2 Bob  3 in  4 New  5 York
    assert align(
        "Ann met Bob in New York", ("New York", "loc"), ("Ann", "per"), ("Bob", "per")
    ) == Alignment((Span(0, 1, "per"), Span(2, 3, "per"), Span(4, 6, "loc")))


def test_two_mentions_of_one_name_take_two_places_and_a_third_is_hallucinated():
    assert align(
        "Paris met Paris", ("Paris", "per"), ("Paris", "loc"), ("Paris", "loc")
    ) == Alignment((Span(0, 1, "per"), Span(2, 3, "loc")), (Entity("Paris", "loc"),))


def test_longest_first_leaves_the_shorter_the_other_place():
    # 0 New 1 York 2 Times 3 , 4 New 5 York: the paper first, though it is written last.
    assert align("New York Times, New York", ("New York", "loc"), ("New York Times", "org")) == (
        Alignment((Span(0, 3, "org"), Span(4, 6, "loc")))
    )


def test_nested_mention_without_a_place_of_its_own_is_hallucinated():
    assert align("New York Times", ("New York", "loc"), ("New York Times", "org")) == Alignment(
        (Span(0, 3, "org"),), (Entity("New York", "loc"),)
    )


def test_equal_length_goes_as_written():
    text = "aa bb cc"
    assert align(text, ("aa bb", "x"), ("bb cc", "y")).spans == (Span(0, 2, "x"),)
    assert align(text, ("bb cc", "y"), ("aa bb", "x")).spans == (Span(1, 3, "y"),)


@pytest.mark.parametrize("surface", ["an", "Ann m", "nn", "ann", "Bob Ann", "", " ", "\u200b"])
def test_token_boundaries_case_and_contents_matter(surface):
    mention = (surface, "per")
    assert align("Ann met Ann", mention) == Alignment((), (Entity(*mention),))


@pytest.mark.parametrize("surface", ["New  York", "New\nYork", " New York ", "NewYork"])
def test_whitespace_does_not_matter(surface):
    assert align("in New York", (surface, "loc")).spans == (Span(1, 3, "loc"),)


def test_spaced_tokens_match_running_text():
    text = from_tokens("the", "U.S.", "'s", "(", "new", ")", "law")
    assert Aligner(text).align([Entity("U.S.'s (new)", "x")]).spans == (Span(1, 6, "x"),)


def test_unicode_composition_does_not_matter_on_either_side():
    assert align("in Zu\u0308rich", ("Z\u00fcrich", "loc")).spans == (Span(1, 2, "loc"),)
    assert align("in Z\u00fcrich", ("Zu\u0308rich", "loc")).spans == (Span(1, 2, "loc"),)
    assert align("in Zu\u0308rich", ("Zu", "loc")).spans == ()
    assert mention_key("A\u030a B") == mention_key("\u212b\tB")


def test_characters_outside_tokens_are_part_of_a_mention():
    text = Example("A*B C", ("A", "B", "C"), ((0, 1), (2, 3), (4, 5)))
    aligner = Aligner(text)
    assert aligner.align([Entity("AB", "x")]).spans == ()
    assert aligner.align([Entity("A*B", "x")]).spans == (Span(0, 2, "x"),)


def test_empty_tokens_do_not_shift_places():
    text = Example("A B", ("", "A", "", "B"), ((0, 0), (0, 1), (1, 1), (2, 3)))
    assert Aligner(text).align([Entity("A", "x"), Entity("B", "y")]).spans == (
        Span(1, 2, "x"),
        Span(3, 4, "y"),
    )


def test_count_is_without_overlap():
    aligner = Aligner(example("a a a a a b"))
    assert len(aligner.places("aa")) == 4
    assert aligner.count("aa") == 2
    assert aligner.count("c") == aligner.count("") == 0


def test_aligner_keeps_no_state_between_answers():
    aligner = Aligner(example("Paris met Paris"))
    first = aligner.align([Entity("Paris", "loc")])
    assert aligner.align([Entity("Paris", "loc")]) == first
    assert aligner.num_tokens == 3


def test_bio_both_ways():
    spans = (Span(0, 1, "per"), Span(1, 3, "per"), Span(4, 6, "a-b"))
    tags = ["B-per", "B-per", "I-per", "O", "B-a-b", "I-a-b", "O"]
    assert spans_to_bio(reversed(spans), 7) == tags
    assert bio_to_spans(tags) == bio_to_spans(tags, strict=True) == spans
    assert bio_to_spans([]) == ()


@pytest.mark.parametrize(
    ("tags", "lenient", "strict"),
    [
        (["I-x", "I-x"], [(0, 2, "x")], []),
        (["O", "I-x", "B-x"], [(1, 2, "x"), (2, 3, "x")], [(2, 3, "x")]),
        (["B-x", "I-y", "I-y"], [(0, 1, "x"), (1, 3, "y")], [(0, 1, "x")]),
        (["B-x", "O", "I-x"], [(0, 1, "x"), (2, 3, "x")], [(0, 1, "x")]),
    ],
)
def test_ill_formed_tags(tags, lenient, strict):
    assert bio_to_spans(tags) == tuple(Span(*span) for span in lenient)
    assert bio_to_spans(tags, strict=True) == tuple(Span(*span) for span in strict)


def test_iobes_tags_are_read():
    tags = ["S-x", "B-x", "I-x", "E-x", "E-x", "S-y"]
    # An E after an E begins a span of its own.
    assert bio_to_spans(tags) == (
        Span(0, 1, "x"),
        Span(1, 4, "x"),
        Span(4, 5, "x"),
        Span(5, 6, "y"),
    )
    with pytest.raises(ValueError, match="'S-x'"):
        bio_to_spans(tags, strict=True)


@pytest.mark.parametrize("tag", ["", "B", "B-", "x", "X-per", "Bper", "BI-per"])
def test_malformed_tag_is_refused(tag):
    with pytest.raises(ValueError, match=r"is not O or one of"):
        bio_to_spans(["O", tag])


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([Span(0, 2, "x"), Span(1, 3, "y")], "overlap"),
        ([Span(0, 5, "x")], "not a range of 4"),
        ([Span(-1, 1, "x")], "not a range"),
        ([Span(2, 2, "x")], "not a range"),
    ],
)
def test_spans_that_cannot_be_tagged_are_refused(spans, message):
    with pytest.raises(ValueError, match=message):
        spans_to_bio(spans, 4)
