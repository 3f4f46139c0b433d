"""The answer format for constrained decoding: what fits it parses, and what we write fits it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.answers import answer_pattern, answer_schema
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.data.prompts import TypeNames, answer
from ccrl_cli.records import Entity

NAMES = ("person", "space agency", "U.S. (state)", 'odd "name" \\ a|b')
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8).filter(
    lambda name: name.strip()
)


def test_by_hand():
    pattern = answer_pattern(["b", "a"])
    for text in (
        "[]",
        '[{"text": "x", "type": "a"}]',
        '[{"text": "x y", "type": "a"}, {"text": "\\"q\\"", "type": "b"}]',
    ):
        assert re.fullmatch(pattern, text)
    for text in (
        "",
        "[ ]",
        '[{"text": "", "type": "a"}]',
        '[{"text": "x", "type": "c"}]',
        '[{"text": "x", "type": "a"},]',
        '[{"type": "a", "text": "x"}]',
        '[{"text": "x\n", "type": "a"}]',
    ):
        assert not re.fullmatch(pattern, text)


def test_schema():
    schema = answer_schema(["b", "a", "b"])
    assert schema["type"] == "object"  # OpenAI's API refuses any other root
    mentions = schema["properties"]["entities"]
    assert mentions["items"]["properties"]["type"]["enum"] == ["a", "b"]
    assert mentions["items"]["additionalProperties"] is False


@pytest.mark.parametrize("make", [answer_pattern, answer_schema])
def test_no_type_is_refused(make):
    with pytest.raises(ValueError, match="at least one type"):
        make([])


@given(st.lists(names, min_size=1, max_size=4), st.data())
def test_every_answer_we_write_fits_and_parses_as_valid(types, data):
    mentions = st.tuples(names, st.sampled_from(types))
    answers = [{"text": t, "type": k} for t, k in data.draw(st.lists(mentions, max_size=4))]
    text = json.dumps(answers, ensure_ascii=False)
    assert re.fullmatch(answer_pattern(types), text)
    assert parse_completion(text, {name: name for name in types}).outcome == "valid"


@given(st.data())
def test_what_fits_the_pattern_parses_as_valid(data):
    """But for blank mentions, lone surrogates and control characters, which no model writes."""
    text = data.draw(st.from_regex(answer_pattern(NAMES), fullmatch=True))
    parse = parse_completion(text, {name: name for name in NAMES})
    if re.search(r"\\u[dD][89a-fA-F]|[\x00-\x1f]", text):
        assert parse.outcome in ("valid", "repaired", "invalid")
        return
    blank = any(not e["text"].strip() for e in json.loads(text))
    assert parse.outcome == "valid" or blank


def test_supervised_answers_are_spelled_so():
    type_names = TypeNames.build(["space_agency"])
    text = answer([Entity("NASA", "space_agency"), Entity("ESA", "space_agency")], type_names)
    assert re.fullmatch(answer_pattern(["space agency"]), text)
