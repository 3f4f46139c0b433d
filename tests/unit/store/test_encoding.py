"""JSON encoding: surrogates, non-finite numbers, numpy."""

from __future__ import annotations

import json

import numpy
import pytest

from ccrl_cli.store.encoding import dump_json, load_json, replace_surrogates


def test_ordinary_values_are_compact_utf_8():
    assert dump_json({"b": "é\u2028", "a": [1, 0.5, None]}) == (
        b'{"b":"\xc3\xa9\xe2\x80\xa8","a":[1,0.5,null]}'
    )
    assert dump_json({"b": 1, "a": 2}, sort_keys=True) == b'{"a":2,"b":1}'


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800", "é\ud83d!"])
def test_lone_surrogates_round_trip(text):
    data = dump_json({text: [text, float("nan"), numpy.float32(0.5)]})
    assert load_json(data) == {text: [text, None, 0.5]}
    assert b"\n" not in data


def test_two_halves_side_by_side_become_their_character():
    assert load_json(dump_json("\ud83d\ude00")) == "\U0001f600"


def test_non_finite_floats_become_null():
    assert dump_json([float("nan"), float("inf")]) == b"[null,null]"


def test_numpy_scalars_are_numbers():
    assert dump_json({"a": numpy.int64(3), "b": numpy.float64(0.5)}) == b'{"a":3,"b":0.5}'


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b'["\\ud800", NaN]', b'"\\ud800', b'"\xff\\ud800"', b"{} {}"]
)
def test_what_is_not_json_is_refused(data):
    with pytest.raises(ValueError):  # noqa: PT011
        load_json(data)


def test_an_unknown_object_is_refused():
    with pytest.raises(TypeError):
        dump_json({"a": object()})


def test_indented_output_is_the_same_for_surrogates():
    assert json.loads(dump_json({"a": "\ud800"}, indent=True)) == {"a": "\ud800"}


def test_replacement_counts_characters():
    assert replace_surrogates("a\ud800b\udc00é") == ("a\ufffdb\ufffdé", 2)
    assert replace_surrogates("é") == ("é", 0)
