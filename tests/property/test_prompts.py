from __future__ import annotations

import random

from hypothesis import assume, given
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, mention_key, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.data.prompts import (
    COMPACT,
    TypeAugmentation,
    answer,
    augment_types,
    escape_special,
    render,
    shown,
    type_order,
)
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import DataError
from ccrl_cli.records import Entity, Example

IDENTIFIERS = st.lists(
    st.text(alphabet="abAB_-/ .é", min_size=1, max_size=6), min_size=1, max_size=6, unique=True
)
SPECIAL = ["<|im_end|>", "<|im_start|>", "</s>", "[INST]"]
HOSTILE = st.lists(
    st.one_of(st.sampled_from([*SPECIAL, "<|", "|>", "\n", "\u2028"]), st.text(max_size=5)),
    max_size=10,
).map("".join)


def names_of(types):
    try:
        return TypeNames.build(types)
    except DataError:
        assume(False)


@given(IDENTIFIERS)
def test_type_names_are_reversible_or_refused(types):
    names = names_of(types)
    for identifier in types:
        assert names.identifier(names.name(identifier)) == identifier
        assert names.by_name[names.name(identifier)] == identifier
        parse = parse_completion(answer([Entity("x", identifier)], names), names.by_name)
        assert parse.outcome == "valid"
        assert parse.entities == (Entity("x", identifier),)


@given(IDENTIFIERS, st.integers(0, 2**63 - 1), st.sets(st.integers(0, 5)))
def test_augmented_types_are_reversible_subsets(types, seed, present):
    names = names_of(types)
    settings = TypeAugmentation(drop=0.5, drop_present=0.5, rename=0.5)
    chosen = {types[i] for i in present if i < len(types)}
    varied = augment_types(random.Random(seed), chosen, types, names, settings)
    assert varied.types
    assert len(set(varied.types)) == len(varied.types)
    assert set(varied.types) <= set(types)
    for identifier in varied.types:
        assert varied.names.identifier(varied.names.name(identifier)) == identifier
    assert sorted(type_order(types, seed)) == sorted(types)


@given(HOSTILE)
def test_rendered_text_is_one_encodable_line_without_special_tokens(text):
    user = render(COMPACT, text, ["rocket"], TypeNames.build(["rocket"]), special_tokens=SPECIAL)[
        1
    ]["content"]
    user.encode("utf-8")
    assert len(user.split("\n")) == 2
    assert not any(token in user for token in SPECIAL)


@given(HOSTILE.filter(lambda t: not any("\ud800" <= c <= "\udfff" for c in t)))
def test_what_is_shown_aligns_with_the_original(text):
    assert mention_key(shown(text, SPECIAL)) == mention_key(text)
    tokens, offsets = tokenize(text)
    if tokens:
        entity = Entity(shown(text, SPECIAL), "rocket")
        assert Aligner(Example(text, tokens, offsets)).align([entity]).hallucinated == ()


@given(
    st.text(alphabet="ab< |>", max_size=20),
    st.lists(st.text(alphabet="ab< |>", max_size=4), max_size=4),
)
def test_escaping_ends_and_leaves_no_splittable_token(text, special):
    escaped = escape_special(text, special)
    assert not any(token in escaped for token in special if len(token.strip()) > 1)
    assert escaped.replace(" ", "") == text.replace(" ", "")
