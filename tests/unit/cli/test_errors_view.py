"""The error browser in colour and in brackets; files of predictions."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.cli.errors_view import errors_text, safe
from ccrl_cli.errors import IntegrityError
from ccrl_cli.store.predictions import read_prediction, read_predictions


def row(text, gold, predicted, *, key="a", hallucinated=(), outcome="valid", completion="[]"):
    def spans(items):
        return [
            {"text": t, "type": k, "start": text.index(t), "end": text.index(t) + len(t)}
            for t, k in items
        ]

    return {
        "input_id": key,
        "text": text,
        "outcome": outcome,
        "completion": completion,
        "gold": None if gold is None else spans(gold),
        "predicted": spans(predicted),
        "hallucinated": [{"text": t, "type": k} for t, k in hallucinated],
    }


JUNO = row(
    "NASA sent Juno to Jupiter",
    [("NASA", "agency"), ("Juno", "probe"), ("Jupiter", "planet")],
    [("NASA", "company"), ("Juno to", "probe"), ("sent", "probe")],
    hallucinated=[("ESA", "agency")],
)
RIGHT = row("Mars", [("Mars", "planet")], [("Mars", "planet")], key="b")
UNREAD = row("Io", [("Io", "moon")], [], key="c", outcome="invalid", completion="I see Io")
UNLABELLED = row("x", None, [], key="d")


def test_brackets_without_colour():
    assert errors_text([RIGHT, UNREAD, JUNO, UNLABELLED], 20, color=False).splitlines() == [
        "2 of 3 sentences have mistakes; 2 shown, worst first",
        "[right], [- missed], [+ invented], [! wrong type], [~ wrong boundary]",
        "",
        "1. 1 missed, 1 invented, 1 wrong type, 1 wrong boundary, 1 not in the text (a)",
        "  gold       [! NASA | agency] sent [~ Juno | probe] to [- Jupiter | planet]",
        "  predicted  [! NASA | company] [+ sent | probe] [~ Juno to | probe] Jupiter",
        "  not in the text: ESA (agency)",
        "",
        "2. 1 missed, answer invalid (c)",
        "  gold       [- Io | moon]",
        "  predicted  Io",
        "  answer not readable: I see Io",
    ]


def test_colours_carry_the_same_words():
    text = errors_text([JUNO], 1, color=True)
    assert "\x1b[1;4;35mNASA\x1b[0m\x1b[35m/agency\x1b[0m" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert "gold       NASA/agency sent Juno/probe to Jupiter/planet" in plain


def test_the_limit_and_no_mistakes():
    assert "2 of 2 sentences have mistakes; 1 shown" in errors_text([JUNO, UNREAD], 1, color=False)
    assert "(c)" not in errors_text([JUNO, UNREAD], 1, color=False)
    assert errors_text([RIGHT], 5, color=False) == (
        "0 of 1 sentences have mistakes; 0 shown, worst first"
    )


def test_a_text_cannot_control_the_terminal():
    hostile = row("a\x1b[2Jb\u202ec\nd", [("c\nd", "t\x07")], [])
    text = errors_text([hostile], 1, color=False)
    assert "a\\u001b[2Jb\\u202e[- c d | t\\u0007]" in text


@given(st.text())
def test_what_is_shown_has_no_control_characters(text):
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", safe(text))


def test_rows_that_are_no_predictions(tmp_path):
    with pytest.raises(IntegrityError, match=r"here is no prediction: 'predicted'"):
        read_prediction({"text": "a", "input_id": "1", "gold": None, "outcome": "valid"}, "here")
    path = tmp_path / "predictions-target-after.jsonl"
    bad = {**RIGHT, "gold": [{"text": "Mars", "type": "planet", "start": 0, "end": 9}]}
    path.write_text(json.dumps(RIGHT) + "\n" + json.dumps(bad) + "\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"after\.jsonl:2 is no prediction: the range 0:9"):
        read_predictions(path)
    with pytest.raises(ValueError, match="no gold labels"):
        read_prediction(UNLABELLED, "x").judgement()
