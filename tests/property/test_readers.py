from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import spans_to_bio
from ccrl_cli.data.columns import read_conll, read_text
from ccrl_cli.data.examples import TaggedRow, from_tagged, text_lines
from ccrl_cli.data.readers import assemble
from ccrl_cli.data.rows import read_json_lines
from ccrl_cli.errors import DataError
from ccrl_cli.records import Span

TOKENS = st.text(st.characters(exclude_characters=" \t\n\r"), min_size=1, max_size=4).filter(
    lambda t: t.strip() and t not in ("#", "-DOCSTART-") and t[0] != "\ufeff"
)


@st.composite
def rows(draw):
    """Return sentences with spans, at least one of them in the first."""
    sentences = []
    for index in range(draw(st.integers(1, 3))):
        tokens = draw(st.lists(TOKENS, min_size=1, max_size=6))
        spans, position = [], 0
        while position < len(tokens):
            end = draw(st.integers(position + 1, len(tokens)))
            if draw(st.booleans()) or (index == 0 and not spans):
                spans.append(Span(position, end, draw(st.sampled_from(["x", "y-z"]))))
            position = end
        sentences.append((tuple(tokens), tuple(spans)))
    return sentences


def iob1(spans, length):
    tags = spans_to_bio(spans, length)
    previous = "O"
    for index, tag in enumerate(tags):
        if tag.startswith("B-") and previous[2:] != tag[2:]:
            tags[index] = f"I-{tag[2:]}"
        previous = tag
    return tags


def iobes(spans, length, end="E", single="S"):
    tags = spans_to_bio(spans, length)
    for span in spans:
        tags[span.end - 1] = f"{single if span.end - span.start == 1 else end}-{span.type}"
    return tags


def bilou(spans, length):
    return iobes(spans, length, "L", "U")


@pytest.mark.parametrize(
    ("write", "scheme"),
    [(spans_to_bio, "IOB2"), (iob1, "IOB1"), (iobes, "IOBES"), (bilou, "IOBES")],
)
@given(sentences=rows())
def test_every_scheme_leads_back_to_the_spans(write, scheme, sentences):
    tagged = [(tokens, spans, write(spans, len(tokens))) for tokens, spans in sentences]
    result = from_tagged([TaggedRow("f:1", tokens, tuple(tags)) for tokens, _, tags in tagged])
    assert [example.gold for example in result.examples] == [spans for _, spans in sentences]
    assert result.scheme == scheme
    assert result.num_repaired == 0
    assert result.num_converted == sum(
        a != b
        for tokens, spans, tags in tagged
        for a, b in zip(tags, spans_to_bio(spans, len(tokens)), strict=True)
    )


@given(sentences=rows())
def test_column_files_keep_every_token(sentences):
    content = "".join(
        "".join(f"{a}\t{b}\n" for a, b in zip(t, spans_to_bio(s, len(t)), strict=True)) + "\n"
        for t, s in sentences
    ).encode("utf-8", "surrogatepass")
    for reader in (read_conll, read_text):
        result = assemble(reader(content, "f"), sha256="")
        assert [(e.tokens, e.gold) for e in result.examples] == sentences
        for example in result.examples:
            assert all(
                example.text[a:b] == token
                for token, (a, b) in zip(example.tokens, example.offsets, strict=True)
            )


@given(st.lists(st.text(max_size=8), max_size=6), st.booleans())
def test_json_lines_keep_every_character(texts, escape):
    dumped = [json.dumps({"text": t}, ensure_ascii=escape) for t in texts]
    content = "".join(f"{line}\n" for line in dumped).encode("utf-8", "surrogatepass")
    assert [row.text for row in read_json_lines(content, "f")] == texts
    result = assemble(read_json_lines(content, "f"), sha256="")
    assert result.counts.sentences + result.counts.empty == len(texts)
    assert result.counts.empty == sum(not text.split() for text in texts)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_with_their_line(content):
    try:
        numbers = [number for number, _ in text_lines(content, "f")]
    except DataError as caught:
        assert str(caught).startswith("f:")  # noqa: PT017
    else:
        assert numbers == list(range(1, len(numbers) + 1))
