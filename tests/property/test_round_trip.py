"""Spans to an answer as text, and back through parsing and alignment."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.data.prompts import answer
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.records import Example, Span

TYPES = ("person", "space_agency", "x-ray")
NAMES = TypeNames.build(TYPES)
WORDS = ["Ann", "O'Neill", '"Bob"', "3.5", "東京", "Größe", "e\u0301tude", "\\n", "a_b", "C-3PO"]


@st.composite
def sentences(draw):
    """Return a sentence of distinct words, and disjoint spans over its tokens in any order."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, unique=True))
    text = " ".join(words)
    example = Example(text, *tokenize(text))
    spans, position = [], 0
    while position < len(example.tokens):
        end = draw(st.integers(position + 1, len(example.tokens)))
        if draw(st.booleans()):
            spans.append(Span(position, end, draw(st.sampled_from(TYPES))))
        position = end
    return example, draw(st.permutations(spans))


@given(sentences())
def test_spans_survive_text(case):
    example, spans = case
    mentions = _with(example, spans).gold_entities()
    parse = parse_completion(answer(mentions, NAMES), NAMES.by_name)
    assert (parse.outcome, parse.num_unknown_types) == ("valid", 0)
    found = Aligner(example).align(parse.entities)
    assert not found.hallucinated
    assert sorted(found.spans) == sorted(spans) or _repeats(example, spans)


def _with(example, spans):
    return Example(example.text, example.tokens, example.offsets, tuple(spans))


def _repeats(example, spans):
    """A mention that occurs twice is put at its first place: that is no fault of the text."""
    aligner = Aligner(example)
    return any(len(aligner.places(example.span_text(s).replace(" ", ""))) > 1 for s in spans)
