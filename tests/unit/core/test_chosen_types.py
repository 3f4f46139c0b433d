"""Types by evidence: the type of highest posterior, and completions that bear it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.agreement import Labeller, canonical
from ccrl_cli.core.type_evidence import SpanScore, chosen_types, with_types
from ccrl_cli.records import Entity, Parse

TYPES = ("city", "river", "person")


def parse(*pairs: tuple[str, str]) -> Parse:
    return Parse("valid", tuple(Entity(*pair) for pair in pairs))


def test_the_blank_decides_between_equal_log_probabilities():
    # log p - blank: city -1 - (-1) = 0, river -1 - (-3) = 2, person -5 - (-3) = -2.
    scores = [SpanScore("Seine", (-1.0, -1.0, -5.0)), SpanScore("Paris", (0.0, -4.0, -4.0))]
    assert chosen_types(scores, (-1.0, -3.0, -3.0), TYPES) == {"Seine": "river", "Paris": "city"}
    assert chosen_types([], (-1.0, -3.0, -3.0), TYPES) == {}


def test_votes_are_for_spans_once_types_are_given():
    parses = [
        parse(("Seine", "river"), ("Paris", "city")),
        parse(("Seine", "city")),
        parse(("Seine", "stream")),  # a type that is not listed
        parse(),
    ]
    labeller = Labeller(rule="entity_vote", metric="entity_vote", types=TYPES)
    plain = labeller("x", parses, [None] * 4)
    assert plain.entities == ()
    typed = labeller("x", with_types(parses, {"Seine": "river", "Paris": "city"}), [None] * 4)
    assert typed.entities == (Entity("Seine", "river"),)
    assert typed.confidence == 0.75
    assert typed.abstained == (Entity("Paris", "city"),)


def test_a_span_under_two_types_is_one_mention_and_copies_stay_copies():
    twice = parse(("Bath", "city"), ("Bath", "river"), ("Bath", "city"))
    (found,) = with_types([twice], {"Bath": "city"})
    assert found.entities == (Entity("Bath", "city"), Entity("Bath", "city"))


entities = st.builds(
    Entity, st.sampled_from(["a", "b", "a  b", "c"]), st.sampled_from([*TYPES, "?"])
)


@given(
    st.lists(entities, max_size=6), st.dictionaries(st.sampled_from("abc"), st.sampled_from(TYPES))
)
def test_spans_stay_and_types_given_hold(found, types):
    before = Parse("valid", tuple(found))
    (after,) = with_types([before], types)
    assert {e.text for e in canonical(after.entities)} == {e.text for e in canonical(found)}
    assert len(after.entities) <= len(found)
    for entity in after.entities:
        if entity.text in types:
            assert entity.type == types[entity.text]
    assert with_types([after], types) == [after]
    assert with_types([before], {}) == [before]
