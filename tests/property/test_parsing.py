import json

from hypothesis import given
from hypothesis import strategies as st

from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.records import Entity

TYPES = {"person": "per", "location": "loc"}
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
JSON_LIKE = st.lists(
    st.sampled_from(
        [
            *"[]{},:\"'\\` \n",
            "```",
            '"text"',
            '"type"',
            '"person"',
            "'text'",
            "NaN",
            "1e9",
            "null",
            "\\u12",
            '{"text": "A", "type": "loc"}',
        ]
    ),
    max_size=25,
).map("".join)
NON_BLANK = st.text(min_size=1, max_size=12).filter(str.strip)
MENTIONS = st.lists(st.tuples(NON_BLANK, st.sampled_from(sorted(TYPES))), max_size=5)


def write(mentions, **options):
    return json.dumps([{"text": t, "type": k} for t, k in mentions], **options)


def expected(mentions):
    return tuple(Entity(text, TYPES[kind]) for text, kind in mentions)


@given(st.one_of(ANY_TEXT, JSON_LIKE))
def test_never_raises_and_can_be_written(text):
    answer = parse_completion(text, TYPES)
    assert (answer.outcome == "valid") == (answer.reason is None)
    if answer.outcome == "invalid":
        assert not answer.entities
    for entity in answer.entities:
        assert entity.text.strip()
        assert entity.type.strip()
        entity.text.encode()
        entity.type.encode()


@given(st.one_of(ANY_TEXT, JSON_LIKE))
def test_no_entities_is_read_only_from_a_complete_empty_list(text):
    answer = parse_completion(text, TYPES)
    if answer.outcome != "invalid" and not answer.entities:
        assert "[]" in "".join(text.split())


@given(MENTIONS, st.booleans())
def test_round_trip(mentions, ascii_only):
    answer = parse_completion(write(mentions, ensure_ascii=ascii_only), TYPES)
    assert answer.outcome == "valid"
    assert answer.entities == expected(mentions)


@given(
    MENTIONS, st.sampled_from(["```json\n{}\n```", "```{}```", "Answer: {}", "{} done", "\n{}."])
)
def test_wrapping_changes_the_outcome_alone(mentions, wrapper):
    answer = parse_completion(wrapper.replace("{}", write(mentions)), TYPES)
    if any("```" in text for text, _ in mentions):
        return
    if not mentions and "```" not in wrapper:
        assert answer.outcome == "invalid"  # an empty list inside prose
        return
    assert answer.outcome == "repaired"
    assert answer.entities == expected(mentions)


@given(MENTIONS.filter(bool), st.data())
def test_cut_tail_keeps_the_complete_objects(mentions, data):
    text = write(mentions)
    cut = data.draw(st.integers(0, len(text) - 1))
    answer = parse_completion(text[:cut], TYPES)
    # An object is complete when its closing brace is inside the cut.
    ends = [len(write(mentions[:n])) - 1 for n in range(1, len(mentions) + 1)]
    complete = sum(end <= cut for end in ends)
    assert answer.entities == expected(mentions[:complete])
    assert answer.outcome == ("repaired" if complete else "invalid")
