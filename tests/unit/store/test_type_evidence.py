"""Type evidence: the posterior, the prompts, the file, the scoring pass."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, tokenize
from ccrl_cli.core.type_evidence import (
    SpanScore,
    matched_prior,
    posteriors,
    spans_to_score,
    type_posterior,
)
from ccrl_cli.data.prompts import get_template
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.data.type_prompts import QUESTIONS, TypePrompt
from ccrl_cli.errors import IntegrityError
from ccrl_cli.records import Entity, Example, Parse
from ccrl_cli.store.jsonl import JsonlWriter
from ccrl_cli.store.type_scores import TypeScores, read_type_scores, type_scores_path

TYPES = ("person", "political_party")
LOGS = st.lists(st.floats(-50, 0), min_size=2, max_size=5)


def aligner(text):
    return Aligner(Example(text, *tokenize(text)))


def test_posterior_divides_the_blank_out():
    # P = 0.6, 0.3, 0.1 and blank 0.6, 0.2, 0.2: ratios 1, 1.5, 0.5, their sum 3.
    logprobs = [[math.log(p) for p in (0.6, 0.3, 0.1)]]
    content_free = [math.log(p) for p in (0.6, 0.2, 0.2)]
    expected = [1 / 3, 1 / 2, 1 / 6]
    assert type_posterior(logprobs, content_free)[0].tolist() == pytest.approx(expected)


@given(LOGS, st.floats(-20, 20), st.data())
def test_posterior_is_a_distribution_and_ignores_constants(logprobs, constant, data):
    content_free = data.draw(
        st.lists(st.floats(-50, 0), min_size=len(logprobs), max_size=len(logprobs))
    )
    found = type_posterior([logprobs], content_free)[0]
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0).all()
    shifted = type_posterior([[value + constant for value in logprobs]], content_free)[0]
    assert shifted.tolist() == pytest.approx(found.tolist(), abs=1e-9)
    same = type_posterior([logprobs], logprobs)[0]  # the text changes nothing: all types alike
    assert same.tolist() == pytest.approx([1 / len(logprobs)] * len(logprobs))


@pytest.mark.parametrize(
    ("logprobs", "content_free", "message"),
    [
        ([[0.0, -1.0]], [0.0], "do not pair up"),
        ([0.0], [0.0], "do not pair up"),
        ([[]], [], "do not pair up"),
        ([[math.nan]], [0.0], "not finite"),
        ([[0.0]], [-math.inf], "not finite"),
    ],
)
def test_bad_scores_are_refused(logprobs, content_free, message):
    with pytest.raises(ValueError, match=message):
        type_posterior(logprobs, content_free)


TABLES = st.integers(2, 4).flatmap(
    lambda types: st.lists(
        st.lists(st.floats(-8, 0), min_size=types, max_size=types), min_size=1, max_size=12
    )
)


def test_prior_matching_by_hand():
    # Both spans say the first type three times as often; off with it, they say both alike.
    # h = ln 3 apart, centred +-ln(3)/2; two spans and two types: 2 / (2 + 2) of it.
    logprobs = [[math.log(0.75), math.log(0.25)]] * 2
    assert matched_prior(logprobs, 1.0).tolist() == pytest.approx(
        [math.log(3) / 4, -math.log(3) / 4], abs=1e-3
    )


@given(TABLES, st.floats(0, 1), st.floats(-20, 20))
def test_prior_matching_makes_types_equally_frequent(logprobs, strength, constant):
    spans, types = len(logprobs), len(logprobs[0])
    found = matched_prior(logprobs, 1.0)
    whole = found * (spans + types) / spans
    assert type_posterior(logprobs, whole).mean(axis=0) == pytest.approx(1 / types, abs=2e-3)
    assert found.mean() == pytest.approx(0, abs=1e-9)
    assert matched_prior(logprobs, strength) == pytest.approx(strength * found)
    moved = [[value + constant for value in logprobs[0]], *logprobs[1:]]
    assert matched_prior(moved, 1.0) == pytest.approx(found, abs=1e-6)


def test_no_span_shows_no_prior():
    assert matched_prior(np.zeros((0, 3)), 1.0).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="strength 2"):
        matched_prior([[0.0, 1.0]], 2.0)
    with pytest.raises(ValueError, match="not of spans and types"):
        matched_prior(np.zeros((3, 0)), 1.0)


def test_spans_of_the_text_are_scored_once():
    parses = [
        Parse("valid", (Entity("Ada", "x"), Entity("New  York", "x"))),
        Parse("valid", (Entity("New York", "y"), Entity("Mars", "x"), Entity("Ada", "y"))),
        Parse("invalid", (Entity("York", "x"),)),
    ]
    assert spans_to_score(aligner("Ada saw New York"), parses) == ("Ada", "New  York")


def test_mentions_without_a_score_get_0():
    parses = [Parse("valid", (Entity("Ada", "x"), Entity("Mars", "x"), Entity("Ada", "other")))]
    # Ratios 3 : 1 after the blank.
    scores = [SpanScore("Ada", (math.log(0.75), math.log(0.25)))]
    found = posteriors(scores, (0.0, 0.0), ("x", "y"), parses)
    assert found == pytest.approx({("Ada", "x"): 0.75, ("Mars", "x"): 0.0, ("Ada", "other"): 0.0})
    assert posteriors([], (0.0, 0.0), ("x", "y"), parses)[("Ada", "x")] == 0.0


def prompt(question="answer", **changes):
    values = {
        "template": get_template("compact"),
        "types": TYPES,
        "names": TypeNames.build(TYPES),
        "end": "<end>",
    }
    return TypePrompt(question=question, **(values | changes))


def test_a_begun_answer_goes_on_with_each_type():
    (asked,) = prompt().ask('He "won"', ['"won"'])
    assert asked.messages[-1]["content"].endswith('Text: He "won"')
    assert asked.continuations == (
        '[{"text": "\\"won\\"", "type": "person"}',
        '[{"text": "\\"won\\"", "type": "political party"}',
    )


def test_a_question_asks_for_one_span_at_a_time():
    first, second = prompt("question").ask("Ada met Bob", ["Ada", "Bob"])
    assert first.continuations == second.continuations == ("person<end>", "political party<end>")
    assert 'Which type is "Bob"?' in second.messages[-1]["content"]
    assert "person, political party" in first.messages[-1]["content"]


def test_another_order_lists_the_types_anew_and_scores_them_as_before():
    first, other = prompt(), prompt(order=TYPES[::-1])
    (asked,), (again,) = first.ask("Ada", ["Ada"]), other.ask("Ada", ["Ada"])
    assert "Types: person, political party" in asked.messages[-1]["content"]
    assert "Types: political party, person" in again.messages[-1]["content"]
    assert asked.continuations == again.continuations


def test_a_question_says_what_types_cover():
    names = TypeNames.build(TYPES, descriptions={"political_party": "parties, not governments"})
    (asked,) = prompt("question", names=names).ask("Ada", ["Ada"])
    lines = asked.messages[-1]["content"].splitlines()
    assert lines[1:4] == [
        "Types: person, political party",
        "What they cover:",
        "- political party: parties, not governments",
    ]
    (begun,) = prompt(names=names).ask("Ada", ["Ada"])
    assert "cover" not in begun.messages[-1]["content"]  # compact: a model is used to the list


@pytest.mark.parametrize("question", QUESTIONS)
def test_texts_cannot_add_control_tokens_to_a_question(question):
    form = prompt(question, special_tokens=("<|im_end|>",))
    for asked in form.ask("a <|im_end|> b", ["<|im_end|>"]):
        assert "<|im_end|>" not in asked.messages[-1]["content"]
        assert not any("<|im_end|>" in text for text in asked.continuations)
    assert form.ask("a", []) == []


def test_wordings_have_digests_of_their_own():
    assert prompt().digest() != prompt("question").digest()
    assert prompt().digest() != prompt(template=get_template("instruct")).digest()


def record(input_id="a", model="m", **changes):
    values = {
        "identity": {"prompt": "p", "labels": "l", "adapter": None},
        "types": TYPES,
        "content_free": (-1.0, -2.0),
        "spans": (SpanScore("Ada", (-0.5, -3.25)),),
    }
    return TypeScores(input_id, model, **(values | changes))


def test_scores_survive_the_file_and_the_last_one_counts(tmp_path):
    path = type_scores_path(tmp_path / "completions.jsonl")
    assert path.name == "completions.types.jsonl"
    assert read_type_scores(path, "m", {}) == {}
    newer = record(content_free=(-1.5, -2.5))
    with JsonlWriter(path) as writer:
        for item in (record(), record(model="other"), newer, record("b", identity={"prompt": "q"})):
            writer.append(item.to_json())
    assert read_type_scores(path, "m", {"prompt": "p"}) == {"a": newer}
    assert set(read_type_scores(path, "m", {})) == {"a", "b"}


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "s.types.jsonl"
    with JsonlWriter(path) as writer:
        writer.append({"input_id": "a"})
    with pytest.raises(IntegrityError, match=r"s\.types\.jsonl"):
        read_type_scores(path, "m", {})
