"""The automaton of answers against the pattern of the same answers."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.answers import answer_pattern
from ccrl_cli.core.automaton import AnswerAutomaton
from ccrl_cli.core.parsing import parse_completion

NAMES = ("space agency", "space", "rocket", 'odd "type"', "Größe", "back\\slash")
AUTOMATON = AnswerAutomaton(NAMES)
PATTERN = re.compile(answer_pattern(NAMES))

mentions = st.lists(
    st.builds(
        lambda text, name: {"text": text, "type": name},
        st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1),
        st.sampled_from((*NAMES, "spaces", "roc", "")),
    ),
    max_size=3,
)


def accepts(text: str) -> bool:
    return AUTOMATON.walk(AUTOMATON.start, text.encode("utf-8")) == AUTOMATON.accepting


@given(mentions, st.data())
def test_it_accepts_what_the_pattern_matches(items, data):
    text = json.dumps(items, ensure_ascii=False)
    if data.draw(st.booleans()):  # a spelling of somebody else, or a damaged one
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(st.sampled_from(["", " ", "x", '"', "]", "\\", "\n"]))
        text += json.dumps(items)[place:] if data.draw(st.booleans()) else ""
    assert accepts(text) == bool(PATTERN.fullmatch(text))


@given(mentions)
def test_what_it_accepts_is_a_valid_answer(items):
    text = json.dumps(items, ensure_ascii=False)
    known = all(item["type"] in NAMES for item in items)
    assert accepts(text) == known
    if known and all(item["text"].strip() for item in items):
        assert parse_completion(text, {name: name for name in NAMES}).outcome == "valid"


@given(st.binary(max_size=12))
def test_every_state_but_the_last_goes_on(data):
    """No prefix of an answer is a dead end: a decoder never runs out of tokens."""
    state = AUTOMATON.walk(AUTOMATON.start, b'[{"text": "' + data)
    if state is None or state == AUTOMATON.accepting:
        return
    firsts = AUTOMATON.first_bytes(state)
    assert firsts is None or firsts
    assert any(AUTOMATON.step(state, byte) is not None for byte in range(256))
