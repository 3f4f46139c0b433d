import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import (
    Aligner,
    bio_to_spans,
    mention_key,
    spans_to_bio,
    tokenize,
)
from ccrl_cli.records import Entity, Example, Span

TEXT = st.one_of(
    st.text(max_size=40),
    st.text(st.sampled_from("ab .,'-12é\u0301\u200d東"), max_size=30),
)
SENTENCE = st.lists(st.sampled_from(["a", "b", "c", "ab"]), max_size=9).map(" ".join)
MENTION = st.builds(
    Entity, st.sampled_from(["a", "b", "a b", "b a", "ab", "c c", "z"]), st.just("x")
)


@st.composite
def tagged(draw):
    """Random non-overlapping spans over a length."""
    length, spans, position = draw(st.integers(0, 12)), [], 0
    while position < length:
        end = draw(st.integers(position + 1, length))
        if draw(st.booleans()):
            spans.append(Span(position, end, draw(st.sampled_from("xy"))))
        position = end
    return length, tuple(spans)


@given(TEXT)
def test_tokens_cover_everything_visible(text):
    tokens, offsets = tokenize(text)
    covered = 0
    for token, (start, end) in zip(tokens, offsets, strict=True):
        assert covered <= start < end
        assert text[start:end] == token
        assert not any(character.isspace() for character in token)
        assert not text[covered:start].strip()
        covered = end
    assert not text[covered:].strip()


@given(st.text(max_size=20), st.text(max_size=20))
def test_keys_are_equal_exactly_up_to_whitespace_and_composition(left, right):
    def composed(text):
        return unicodedata.normalize("NFC", "".join(text.split()))

    assert (mention_key(left) == mention_key(right)) == (composed(left) == composed(right))
    assert mention_key(left) == mention_key(unicodedata.normalize("NFC", left))


@given(TEXT, st.data())
def test_every_token_range_can_be_placed(text, data):
    example = Example(text, *tokenize(text))
    if not example.tokens:
        return
    start = data.draw(st.integers(0, len(example.tokens) - 1))
    end = data.draw(st.integers(start + 1, len(example.tokens)))
    key = mention_key(example.span_text(Span(start, end, "x")))
    ranges = [place[:2] for place in Aligner(example).places(key)]
    # A stray mark at the start of a text reorders with nothing before it, so this always holds.
    assert (start, end) in ranges


@given(SENTENCE, st.lists(MENTION, max_size=8))
def test_alignment_places_or_reports_every_mention(text, mentions):
    example = Example(text, *tokenize(text))
    alignment = Aligner(example).align(mentions)
    assert len(alignment.spans) + len(alignment.hallucinated) == len(mentions)
    spans_to_bio(alignment.spans, len(example.tokens))  # raises on overlap
    assert list(alignment.spans) == sorted(alignment.spans)
    placed = sorted(mention_key(example.span_text(span)) for span in alignment.spans)
    stated = sorted(mention_key(mention.text) for mention in mentions)
    missing = [mention_key(mention.text) for mention in alignment.hallucinated]
    assert sorted(placed + missing) == stated
    # A mention is reported only if none of its places is free.
    taken = [tag != "O" for tag in spans_to_bio(alignment.spans, len(example.tokens))]
    aligner = Aligner(example)
    for mention in alignment.hallucinated:
        for start, end, _ in aligner.places(mention_key(mention.text)):
            assert any(taken[start:end])


@given(SENTENCE, st.lists(MENTION, max_size=6))
def test_places_agree_with_a_naive_search(text, mentions):
    example = Example(text, *tokenize(text))
    aligner = Aligner(example)
    count = len(example.tokens)
    for mention in mentions:
        key = mention_key(mention.text)
        naive = [
            (start, end)
            for start in range(count)
            for end in range(start + 1, count + 1)
            if "".join(example.tokens[start:end]) == key
        ]
        places = aligner.places(key)
        assert [place[:2] for place in places] == naive
        assert all(mask == sum(1 << i for i in range(s, e)) for s, e, mask in places)


@given(tagged())
def test_bio_round_trip(case):
    length, spans = case
    tags = spans_to_bio(spans, length)
    assert len(tags) == length
    assert bio_to_spans(tags) == bio_to_spans(tags, strict=True) == spans
