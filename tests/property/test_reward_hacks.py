"""A search for hacks: answers as text, mutated towards a higher reward, against the label."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from ccrl_cli.core.alignment import Aligner, mention_key, tokenize
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.core.rewards import OVERLAPS, RewardWeights, expected_f1, make_target, score
from ccrl_cli.records import Entity, Example, Parse

TYPES = {"person": "person", "place name": "place", "group": "group"}
NAMES = {identifier: name for name, identifier in TYPES.items()}
WORDS = ["Ann", "Bob", "Lee", "Rome", "of", "the"]
WEIGHTS = {
    name: RewardWeights(
        overlap=name, length_weight=0.2, length_soft_tokens=40, length_limit_tokens=80
    )
    for name in OVERLAPS
}
EXAMPLES = st.lists(st.sampled_from(WORDS), min_size=2, max_size=9).map(
    lambda words: Example(" ".join(words), *tokenize(" ".join(words)))
)


@st.composite
def labelled(draw):
    """Return a text and a label that it can carry: disjoint ranges of its words."""
    example = draw(EXAMPLES)
    cuts = draw(st.sets(st.integers(0, len(example.tokens)), min_size=2, max_size=6))
    bounds = sorted(cuts)
    entities = [
        Entity(" ".join(example.tokens[low:high]), draw(st.sampled_from(sorted(TYPES.values()))))
        for low, high in pairwise(bounds)
        if draw(st.booleans())
    ]
    return example, entities


def write(entities):
    return json.dumps([{"text": e.text, "type": NAMES.get(e.type, e.type)} for e in entities])


def earn(text, goal, overlap):
    parse = parse_completion(text, TYPES)
    return score(parse, goal, WEIGHTS[overlap], num_tokens=len(text) // 4)["total"]


def overlap_of(entities, goal, overlap):
    return OVERLAPS[overlap](Parse("valid", tuple(entities)), goal)


def label_of(goal_example, entities):
    """Return the target, and the answer that writes exactly it."""
    aligner = Aligner(goal_example)
    ordered = sorted(entities, key=lambda e: (mention_key(e.text), e.type))
    places = aligner.place([mention_key(e.text) for e in ordered])
    kept = [e for e, place in zip(ordered, places, strict=True) if place is not None]
    return make_target(aligner, entities), kept


@st.composite
def attacks(draw, example, entities):
    """Return an answer made of whatever a policy may try: parts of the label, text and prompt."""
    pieces = [
        Entity(" ".join(example.tokens[low:high]), kind)
        for low in range(len(example.tokens))
        for high in range(low + 1, len(example.tokens) + 1)
        for kind in (*sorted(TYPES.values()), "unheard of")
    ]
    chosen = draw(st.lists(st.sampled_from([*pieces, *entities]), max_size=10))
    chosen += list(entities) * draw(st.integers(0, 3))
    chosen += [Entity("Atlantis", "place")] * draw(st.integers(0, 2))
    if chosen:
        chosen += [chosen[draw(st.integers(0, len(chosen) - 1))]] * draw(
            st.sampled_from([0, 0, 1, 5, 60])
        )
    text = write(draw(st.permutations(chosen)))
    for wrap in draw(st.lists(st.sampled_from(sorted(WRAPS)), max_size=2)):
        text = WRAPS[wrap](text, example)
    return text


WRAPS = {
    "prose before": lambda text, _: f"The entities are: {text}",
    "prose after": lambda text, _: f"{text}\nI hope this helps!",
    "fence": lambda text, _: f"```json\n{text}\n```",
    "twice": lambda text, _: f"{text}\n{text}",
    "echo of the text": lambda text, example: f"Text: {example.text}\n{text}",
    "spaces": lambda text, _: text.replace(" ", "   \n"),
    "extra keys": lambda text, _: text.replace("}", ', "confidence": 1}'),
    "cut": lambda text, _: text[:-1],
    "object": lambda text, _: f'{{"entities": {text}}}',
    "trailing comma": lambda text, _: text.replace("]", ",]"),
}


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.data())
@settings(max_examples=400)
def test_no_attack_earns_more_than_the_label(case, overlap, data):
    example, entities = case
    goal, kept = label_of(example, entities)
    best = score(Parse("valid", tuple(kept)), goal, WEIGHTS[overlap])["total"]
    assert best == WEIGHTS[overlap].range[1]
    attack = data.draw(attacks(example, entities))
    earned = earn(attack, goal, overlap)
    target(earned)
    assert earned <= best
    # The full reward is paid for the label alone, written as the format asks.
    if earned == best and overlap in ("exact", "entity_f1"):
        parse = parse_completion(attack, TYPES)
        stated = Counter((mention_key(e.text), e.type) for e in parse.entities)
        assert parse.outcome == "valid"
        assert stated == Counter((mention_key(e.text), e.type) for e in kept)


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.data())
@settings(max_examples=300)
def test_padding_and_wrapping_a_right_answer_never_pays(case, overlap, data):
    example, entities = case
    goal, kept = label_of(example, entities)
    right = data.draw(st.lists(st.sampled_from(kept), unique=True)) if kept else []
    text = write(right)
    wrap = data.draw(st.sampled_from(sorted(WRAPS)))
    assert earn(WRAPS[wrap](text, example), goal, overlap) <= earn(text, goal, overlap) + 1e-12


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.integers(1, 60), st.data())
@settings(max_examples=300)
def test_repeating_a_right_mention_beyond_the_label_never_pays(case, overlap, copies, data):
    example, entities = case
    goal, kept = label_of(example, entities)
    if not kept:
        return
    right = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
    mention = data.draw(st.sampled_from(right))
    # A copy that lands on a part of another mention would be right in part.
    words = set(tokenize(mention.text)[0])
    others = [other for other in kept if other != mention]
    assume(not any(words.intersection(tokenize(other.text)[0]) for other in others))
    assume(not any(mention_key(mention.text) in mention_key(other.text) for other in others))
    due = sum(mention == other for other in kept)
    full = right + [mention] * (due - sum(mention == other for other in right))
    before = earn(write(full), goal, overlap)
    assert earn(write(full + [mention] * copies), goal, overlap) <= before + 1e-12
    if overlap in ("token_f1", "entity_f1"):  # and it costs, whatever the format weighs
        more = overlap_of(full + [mention] * copies, goal, overlap)
        assert more < overlap_of(full, goal, overlap)


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.data())
@settings(max_examples=300)
def test_copying_the_text_into_a_right_answer_never_pays(case, overlap, data):
    example, entities = case
    goal, kept = label_of(example, entities)
    if not kept:
        return
    right = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
    whole = Entity(example.text, data.draw(st.sampled_from(sorted(TYPES.values()))))
    if whole in kept:
        return
    copies = data.draw(st.integers(1, 5))
    before = earn(write(right), goal, overlap)
    assert earn(write([*right, *[whole] * copies]), goal, overlap) <= before + 1e-12
    if overlap in ("token_f1", "entity_f1"):
        more = overlap_of([*right, *[whole] * copies], goal, overlap)
        assert more < overlap_of(right, goal, overlap)


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.data())
@settings(max_examples=200)
def test_adding_every_type_to_a_right_mention_never_pays(case, overlap, data):
    example, entities = case
    goal, kept = label_of(example, entities)
    if not kept:
        return
    right = data.draw(st.lists(st.sampled_from(kept), min_size=1, unique=True))
    mention = data.draw(st.sampled_from(right))
    due = {(mention_key(e.text), e.type) for e in kept}
    added = [
        Entity(mention.text, kind)
        for kind in [*TYPES.values(), "unheard of"]
        if (mention_key(mention.text), kind) not in due
    ]
    before = earn(write(right), goal, overlap)
    assert earn(write([*right, *added]), goal, overlap) <= before + 1e-12


@given(labelled(), st.sampled_from(sorted(OVERLAPS)), st.data())
def test_abstained_mentions_neither_pay_nor_cost_in_overlap(case, overlap, data):
    example, entities = case
    held = data.draw(st.lists(st.sampled_from(entities), unique=True)) if entities else []
    goal = make_target(Aligner(example), entities, held)
    rest = [e for e in entities if e not in held]
    _, kept = label_of(example, rest)
    measure = OVERLAPS[overlap]
    with_them = measure(Parse("valid", (*kept, *held)), goal)
    without = measure(Parse("valid", tuple(kept)), goal)
    assert with_them == without == 1.0


@given(labelled(), st.data())
def test_expected_f1_never_pays_for_a_mention_nobody_voted_for(case, data):
    example, entities = case
    votes = [(entity, data.draw(st.sampled_from([0.25, 0.5, 1.0]))) for entity in entities]
    goal = make_target(Aligner(example), entities, votes=votes)
    stated = data.draw(st.lists(st.sampled_from(entities))) if entities else []
    if not stated:
        return
    invented = Entity("Atlantis", "place")
    before = expected_f1(Parse("valid", tuple(stated)), goal)
    assert expected_f1(Parse("valid", (*stated, invented)), goal) < before
