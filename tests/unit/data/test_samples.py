"""The hand-written corpora, reviewed like code."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from importlib import resources
from itertools import chain

import pytest

from ccrl_cli.core.alignment import Aligner, mention_key
from ccrl_cli.data.catalog import SPLITS, available_splits, load_split
from ccrl_cli.data.markup import parse_sentence
from ccrl_cli.data.type_names import TypeNames
from written_markup import format_sentence

MINIMUM = {"newswire": (200, 0.10), "spaceflight": (240, 0.03)}
"""Corpus: fewest sentences in all, least share of mentions of each type."""

NAMES = tuple(MINIMUM)


@pytest.fixture(scope="module")
def corpora():
    return {
        name: {split: load_split(f"sample:{name}", split) for split in SPLITS} for name in NAMES
    }


def sentences(corpora, name):
    return [example for split in corpora[name].values() for example in split.examples]


def skeleton(example):
    """Return the words of a sentence, lower case, with one mark for each mention."""
    begins = {span.start: span for span in example.gold}
    inside = {i for span in example.gold for i in range(span.start, span.end)}
    return tuple(
        "<mention>" if index in begins else token.casefold()
        for index, token in enumerate(example.tokens)
        if index in begins or index not in inside
    )


def grams(words, n):
    return {words[i : i + n] for i in range(len(words) - n + 1)}


def is_plain(gram):
    """Return whether an n-gram holds words alone, neither mentions nor endings such as 's."""
    return all(re.fullmatch(r"[^\W\d]{2,}|[ai]", word) for word in gram)


def test_there_are_these_samples_and_they_describe_themselves():
    folders = resources.files("ccrl_cli.data").joinpath("samples").iterdir()
    samples = {folder.name: folder.joinpath("corpus.toml") for folder in folders}
    assert set(samples) == set(NAMES)
    for name, file in samples.items():
        corpus = tomllib.loads(file.read_text(encoding="utf-8"))
        labels, type_names = corpus["labels"], corpus.get("type_names", {})
        assert corpus["name"] == name
        assert corpus["description"]
        assert corpus["license"] == "CC0-1.0"
        assert available_splits(f"sample:{name}") == SPLITS
        assert set(corpus["guidelines"]) == set(labels)
        assert set(type_names) <= set(labels)
        TypeNames.build(labels, type_names)


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_sentences(corpora, name):
    assert len(sentences(corpora, name)) >= MINIMUM[name][0]
    for split in corpora[name].values():
        assert len(split.examples) >= 30


@pytest.mark.parametrize("name", NAMES)
def test_mentions_align_and_have_known_types(corpora, name):
    for split in corpora[name].values():
        for example in split.examples:
            assert parse_sentence(format_sentence(example), "here", split.labels) == example
            for entity in example.gold_entities():
                # an apostrophe may begin a name ('Oumuamua), and a firm may end in 's
                assert entity.text == entity.text.strip(' ,;:"“”').rstrip("'’("), example.text


@pytest.mark.parametrize("name", NAMES)
def test_types_are_balanced_and_in_every_split(corpora, name):
    counts = Counter(e.type for x in sentences(corpora, name) for e in x.gold_entities())
    assert set(counts) == set(corpora[name]["train"].labels)
    assert min(counts.values()) >= MINIMUM[name][1] * counts.total(), counts
    for split in corpora[name].values():
        assert {e.type for x in split.examples for e in x.gold_entities()} == set(split.labels)


@pytest.mark.parametrize("name", NAMES)
def test_some_sentences_have_no_mention(corpora, name):
    examples = sentences(corpora, name)
    share = sum(not example.gold for example in examples) / len(examples)
    assert 0.05 <= share <= 0.20, share
    assert all(any(not x.gold for x in split.examples) for split in corpora[name].values())


def test_no_sentence_occurs_twice(corpora):
    every = [x for name in NAMES for x in sentences(corpora, name)]
    counts = Counter(" ".join(re.findall(r"\w+", x.text.casefold())) for x in every)
    assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_sentences_begin_differently(corpora, name):
    examples = sentences(corpora, name)
    openings = Counter(skeleton(example)[:3] for example in examples)
    worst = [(o, n) for o, n in openings.items() if n > 3 and sum(map(str.isalpha, o)) > 1]
    assert worst == []
    words = Counter(tuple(t.casefold() for t in example.tokens[:3]) for example in examples)
    assert len(words) >= 0.95 * len(examples), words.most_common(5)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_sentences_share_a_skeleton(corpora, name):
    counts = Counter(skeleton(example) for example in sentences(corpora, name))
    assert [" ".join(words) for words, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("name", NAMES)
def test_wording_is_not_repeated(corpora, name):
    found = Counter(
        chain.from_iterable(grams(skeleton(example), 4) for example in sentences(corpora, name))
    )
    plain = {gram: count for gram, count in found.items() if is_plain(gram)}
    assert [gram for gram, count in plain.items() if count > 2] == []
    assert sum(count > 1 for count in plain.values()) <= 0.02 * len(plain)


@pytest.mark.parametrize("name", NAMES)
def test_lengths_vary(corpora, name):
    lengths = sorted(len(example.tokens) for example in sentences(corpora, name))
    tenth, nine_tenths = lengths[len(lengths) // 10], lengths[-len(lengths) // 10]
    assert nine_tenths >= 1.6 * tenth
    assert lengths[0] <= 8
    assert 25 <= lengths[-1] <= 60


@pytest.mark.parametrize("name", NAMES)
def test_hard_cases_are_there(corpora, name):
    examples = sentences(corpora, name)
    texts = [example.text for example in examples]
    assert sum("'" in text or "’" in text for text in texts) >= 5
    assert sum(not text.isascii() for text in texts) >= 5
    types_of = defaultdict(set)
    for example in examples:
        for entity in example.gold_entities():
            types_of[entity.text].add(entity.type)
    assert sum(len(types) > 1 for types in types_of.values()) >= 1
    repeated = [
        example
        for example in examples
        if len({e.text for e in example.gold_entities()}) < len(example.gold)
    ]
    assert repeated


@pytest.mark.parametrize("name", NAMES)
def test_most_names_of_the_test_split_are_not_in_the_training_split(corpora, name):
    train, test = (
        {e.text for x in corpora[name][split].examples for e in x.gold_entities()}
        for split in ("train", "test")
    )
    assert len(test - train) >= 0.4 * len(test)


@pytest.mark.parametrize("name", NAMES)
def test_names_are_not_left_unmarked(corpora, name):
    examples = sentences(corpora, name)
    names = {mention_key(e.text) for example in examples for e in example.gold_entities()}
    unmarked = []
    for example in examples:
        used = sum((1 << span.end) - (1 << span.start) for span in example.gold)
        aligner = Aligner(example)
        unmarked += [
            (key, example.text)
            for key in names
            if any(not place[2] & used for place in aligner.places(key))
        ]
    # what remains is part of a longer name of a kind that is not annotated
    assert len(unmarked) <= 0.01 * len(examples), unmarked
