"""Scoring any system's file: formats, matching by text, and what has no place."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.pipelines.evaluation.score_file import score_files
from made_run import make_run

GOLD = [
    {"text": "NASA sent Juno to Jupiter .", "entities": [{"text": "NASA", "type": "agency"},
                                                         {"text": "Juno", "type": "probe"}]},
    {"text": "ESA waits .", "entities": [{"text": "ESA", "type": "agency"}]},
    {"text": "Nothing here .", "entities": []},
]  # fmt: skip


def write(place, rows):
    place.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return place


@pytest.fixture
def gold(tmp_path):
    return write(tmp_path / "gold.jsonl", GOLD)


def scored(tmp_path, gold, rows):
    return score_files(write(tmp_path / "said.jsonl", rows), gold)


def said(text, *entities):
    return {"text": text, "entities": list(entities)}


def entity(text, kind, start=None):
    ranged = {} if start is None else {"start": start, "end": start + len(text)}
    return {"text": text, "type": kind, **ranged}


def test_gold_scores_1_against_itself(tmp_path, gold):
    found = scored(tmp_path, gold, GOLD)
    assert (found.scores.f1, found.scores.seqeval_f1, found.missing, found.unmatched) == (
        1,
        1,
        0,
        0,
    )
    assert found.types == ("agency", "probe")


def test_counts_are_worked_out_by_hand(tmp_path, gold):
    found = scored(tmp_path, gold, [
        # Right; wrong type; not in the text.
        said(GOLD[0]["text"], entity("NASA", "agency", 0), entity("Juno", "agency", 10),
             entity("Mars", "probe")),
        # An invented mention; "ESA" is missed.
        said(GOLD[1]["text"], entity("waits", "agency")),
        said("Elsewhere .", entity("Elsewhere", "probe")),
    ])  # fmt: skip
    # TP 1, FP 3 (type, Mars, waits), FN 2 (Juno, ESA): F1 = 2/(2 + 3 + 2).
    assert found.scores.f1 == pytest.approx(2 / 7)
    assert (found.scores.num_gold, found.scores.num_predicted) == (3, 4)
    assert found.scores.num_hallucinated == 1
    assert (found.missing, found.unmatched) == (1, 1)
    assert found.scores.exact_share == pytest.approx(1 / 3)  # the one without prediction
    by_type = found.scores.per_type
    assert (by_type["agency"].gold, by_type["agency"].predicted) == (2, 3)


def test_a_range_inside_a_word_is_wrong_and_kept(tmp_path, gold):
    found = scored(tmp_path, gold, [said(GOLD[0]["text"], entity("NAS", "agency", 0))])
    assert (found.scores.num_predicted, found.scores.num_hallucinated) == (1, 0)
    assert (found.scores.f1, found.rows[0]["hallucinated"]) == (0.0, [])
    (row,) = found.rows[0]["predicted"]
    assert {key: row[key] for key in ("text", "start", "end")} == {
        "text": "NAS",
        "start": 0,
        "end": 3,
    }


def test_overlapping_predictions_are_all_counted(tmp_path, gold):
    found = scored(tmp_path, gold, [
        said(GOLD[0]["text"], entity("NASA", "agency", 0), entity("NASA sent", "agency", 0)),
    ])  # fmt: skip
    # TP 1, FP 1, FN 2
    assert found.scores.f1 == pytest.approx(2 / 5)
    assert found.scores.seqeval_f1 is None  # overlapping spans have no tags


@pytest.mark.parametrize("packed", [False, True])
def test_predictions_are_read_as_data_is(tmp_path, gold, packed):
    rows = [json.dumps(row) for row in GOLD]
    content = "\ufeff" + "\n\n".join(rows).replace('{"text"', '{"score": NaN, "text"')
    place = tmp_path / ("said.jsonl.GZ" if packed else "said.jsonl")
    stored = content.encode()  # no line feed at the end
    place.write_bytes(gzip.compress(stored) if packed else stored)
    assert score_files(place, gold).scores.f1 == 1


def test_predictions_of_other_tools_score_alike(tmp_path, gold):
    rows = [
        {
            "data": {"text": row["text"]},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "labels",
                            "value": {
                                "start": row["text"].index(e["text"]),
                                "end": row["text"].index(e["text"]) + len(e["text"]),
                                "labels": [e["type"]],
                            },
                        }
                        for e in row["entities"]
                    ]
                }
            ],
        }
        for row in GOLD
    ]
    place = tmp_path / "said.json"
    place.write_text(json.dumps(rows), encoding="utf-8")
    assert score_files(place, gold).scores.f1 == 1


def test_sentences_are_matched_by_their_visible_characters(tmp_path):
    gold = write(tmp_path / "gold.jsonl", [said("A new U.S. law", entity("U.S.", "place", 6))])
    spaced = [said("A new U.S . law", {"text": "U.S .", "type": "place", "start": 6, "end": 11})]
    found = scored(tmp_path, gold, spaced)
    assert (found.scores.f1, found.missing) == (1, 0)


def test_case_and_quotes_are_folded_and_counted(tmp_path, gold):
    found = scored(tmp_path, gold, [said(GOLD[0]["text"], entity("nasa", "agency"))])
    assert (found.scores.num_folded, found.scores.num_hallucinated) == (1, 0)
    assert found.scores.per_type["agency"].precision == 1


def test_equal_texts_are_matched_in_order(tmp_path):
    twice = [said("ESA waits .", entity("ESA", "agency")), said("ESA waits .")]
    place = write(tmp_path / "gold.jsonl", twice)
    assert scored(tmp_path, place, twice).scores.f1 == 1
    assert scored(tmp_path, place, twice[::-1]).scores.f1 == 0


def test_tags_and_columns_are_read(tmp_path, gold):
    tagged = write(tmp_path / "tagged.jsonl", [
        {"tokens": GOLD[0]["text"].split(),
         "ner_tags": ["B-agency", "O", "B-probe", "O", "O", "O"]},
        {"tokens": GOLD[1]["text"].split(), "ner_tags": ["B-agency", "O", "O"]},
    ])  # fmt: skip
    assert score_files(tagged, gold).scores.f1 == 1
    columns = tmp_path / "said.conll"
    columns.write_text("ESA B-agency\nwaits O\n. O\n\n", encoding="utf-8")
    found = score_files(columns, gold)
    assert (found.scores.f1, found.missing) == (pytest.approx(2 / 4), 2)


@pytest.mark.parametrize("role", ["target", "source"])
def test_our_own_predictions_score_as_they_did(tmp_path, role):
    run = make_run(tmp_path)
    place = run / f"predictions-{role}-after.jsonl"
    rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    gold = write(tmp_path / "gold.jsonl",
                 [{"text": row["text"], "entities": row["gold"]} for row in rows])  # fmt: skip
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    expected = evaluation["domains"][role]["after"]
    found = asdict(score_files(place, gold).scores)
    for key in ("f1", "precision", "recall", "num_gold", "num_predicted", "num_hallucinated",
                "exact_share", "seqeval_f1", "invalid_share", "repaired_share"):  # fmt: skip
        assert found[key] == pytest.approx(expected[key]), key


WORDS = st.lists(st.sampled_from(["Ann", "Bo", "Cy", "d", "e"]), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS.flatmap(lambda w: st.tuples(
    st.just(w), st.lists(st.sampled_from(["O", "B-x", "I-x", "B-y"]), min_size=len(w),
                         max_size=len(w)))), min_size=1, max_size=5))  # fmt: skip
def test_tags_and_ranges_score_alike(tmp_path_factory, corpus):
    folder = tmp_path_factory.mktemp("f")
    gold = write(folder / "gold.jsonl", [
        {"tokens": words, "ner_tags": ["B-x", *["O"] * (len(words) - 1)]} for words, _ in corpus
    ])  # fmt: skip
    tags = write(folder / "tags.jsonl",
                 [{"tokens": words, "ner_tags": tags} for words, tags in corpus])  # fmt: skip
    one = score_files(tags, gold)
    ranged = write(folder / "ranged.jsonl", [
        {"text": row["text"], "entities": row["predicted"]} for row in one.rows
    ])  # fmt: skip
    two = score_files(ranged, gold)
    assert asdict(one.scores) == asdict(two.scores)
    assert one.scores.num_hallucinated == 0
    if one.scores.num_predicted:
        assert one.scores.f1 == pytest.approx(one.scores.seqeval_f1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "NASA sent Juno to Jupiter .", "entities": [{"text": "NASA"}]}],
            'no "type"',
        ),
        ([{"text": "NASA", "entities": "x"}], "not a list"),
        ([{"text": "NASA"}], "states no predictions"),
        ([{"tokens": ["NASA"]}], "states no predictions"),
        ([{"text": "NASA waits", "entities": [entity("ESA", "agency", 0)]}], "is not 'ESA'"),
        ([{"text": "NASA", "entities": [], "hallucinated": [1]}], "no list of mentions"),
        ([{"text": "Another .", "entities": []}], "no prediction for any sentence"),
    ],
)
def test_bad_predictions(tmp_path, gold, rows, message):
    with pytest.raises(DataError, match=message):
        scored(tmp_path, gold, rows)


def test_bad_gold(tmp_path, gold):
    bare = write(tmp_path / "bare.jsonl", [{"text": "NASA waits ."}])
    with pytest.raises(DataError, match="1 of 1 sentences have no gold"):
        score_files(gold, bare)
    with pytest.raises(PreconditionError, match="does not exist"):
        score_files(tmp_path / "none.jsonl", gold)
    with pytest.raises(PreconditionError, match="does not exist"):
        score_files(gold, tmp_path / "none.jsonl")
