from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import tokenize
from ccrl_cli.data.markup import parse_corpus, parse_sentence
from ccrl_cli.errors import DataError
from ccrl_cli.records import Example, Span
from written_markup import format_sentence

TYPES = st.sampled_from(["rocket", "space_agency", "a|b]", "\\", "#"])
PIECES = st.one_of(
    st.sampled_from(
        ["[", "]", "|", "\\", "#", " ", "'", "-", "Vega", "é", "e\u0301", "火", "\u2028"]
    ),
    st.text(max_size=4),
)
TEXTS = (
    st.lists(PIECES, max_size=12)
    .map("".join)
    .filter(lambda t: t.strip() and "\n" not in t and not t.endswith("\r") and t[0] != "\ufeff")
)


@st.composite
def examples(draw):
    text = draw(TEXTS)
    tokens, offsets = tokenize(text)
    spans, position = [], 0
    while position < len(tokens):
        end = draw(st.integers(position + 1, min(len(tokens), position + 3)))
        if draw(st.booleans()):
            spans.append(Span(position, end, draw(TYPES)))
        position = end
    return Example(text, tokens, offsets, tuple(spans))


@given(examples())
def test_format_then_parse_gives_the_same_example(example):
    line = format_sentence(example)
    assert parse_sentence(line, "f:1") == example
    content = f"{line}\n".encode("utf-8", "surrogatepass")
    assert parse_corpus(content, "f") == (example,)


@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_line_parses_or_is_refused_with_its_place(line):
    try:
        example = parse_sentence(line, "f:1")
    except DataError as caught:
        problem = caught
        assert problem.message.startswith("f:1:")
        assert problem.hint
    else:
        assert all(example.span_text(span) in example.text for span in example.gold)
