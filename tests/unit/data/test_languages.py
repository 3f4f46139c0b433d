"""Real sets in Chinese, Serbian, Korean and Thai: as published and as text with ranges."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ccrl_cli.core.placing import TextPlacer
from ccrl_cli.data.readers import read_examples
from ccrl_cli.pipelines.evaluation.score_file import score_files

PUBLISHED = {"zh_gsd": "zh_gsd.iob2", "sr_set": "sr_set.iob2", "klue_ko": "klue_ko.tsv"}


@pytest.fixture
def folder():
    place = Path(os.environ.get("CCRL_DATA_DIR", "")) / "languages"
    if "CCRL_DATA_DIR" not in os.environ or not place.is_dir():
        pytest.skip("needs CCRL_DATA_DIR with languages/")
    return place


def mentions(example):
    return [
        (example.offsets[s.start][0], example.offsets[s.end - 1][1], s.type) for s in example.gold
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_form_and_its_ranges_are_the_same_sentences(folder, name):
    published = read_examples(folder / PUBLISHED[name])
    ranges = read_examples(folder / f"{name}.ranges.jsonl")
    assert [e.text for e in published.examples] == [e.text for e in ranges.examples]
    assert list(map(mentions, published.examples)) == list(map(mentions, ranges.examples))


@pytest.mark.parametrize("name", ["zh_gsd", "sr_set", "klue_ko", "th"])
def test_gold_as_predictions_scores_1_in_every_form(folder, name):
    forms = [folder / f"{name}.ranges.jsonl"]
    if name in PUBLISHED:
        forms.append(folder / PUBLISHED[name])
    for predictions in forms:
        for gold in forms:
            found = score_files(predictions, gold)
            assert (found.scores.f1, found.missing, found.unmatched) == (1.0, 0, 0)


@pytest.mark.parametrize("name", ["zh_gsd", "sr_set", "klue_ko", "th"])
def test_every_gold_mention_is_placed(folder, name):
    moved = 0
    for example in read_examples(folder / f"{name}.ranges.jsonl").examples:
        gold = [(start, end) for start, end, _ in mentions(example)]
        places = TextPlacer(example).place([example.text[a:b] for a, b in gold])
        assert None not in places
        found = {(place.start, place.end) for place in places}
        moved += len(set(gold) - found)
    # Two names of the Chinese set stand twice in their sentence, and the second one is annotated.
    assert moved == (2 if name == "zh_gsd" else 0)
