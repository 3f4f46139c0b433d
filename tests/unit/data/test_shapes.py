"""Files of annotation tools and public sets, recognised by shape or refused with their fields."""

from __future__ import annotations

import gzip
import json

import pytest

from ccrl_cli.data.catalog import DatasetSpec, load_split
from ccrl_cli.data.readers import read_examples
from ccrl_cli.errors import DataError, PreconditionError

TEXT = "Mia Gold moved to Oslo."
WANTED = [("Mia Gold", "PER"), ("Oslo", "LOC")]


def read(tmp_path, name, content):
    path = tmp_path / name
    if not isinstance(content, bytes | str):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_examples(path)


def found(result):
    return [
        None if e.gold is None else [(e.span_text(span), span.type) for span in e.gold]
        for e in result.examples
    ]


def span(start, end, label, **more):
    return {"start": start, "end": end, "label": label, **more}


LABEL_STUDIO = {
    "id": 1,
    "data": {"text": TEXT, "source": "x"},
    "annotations": [
        {
            "result": [
                {"type": "labels", "value": {"start": 0, "end": 8, "text": "Mia Gold",
                                             "labels": ["PER"]}},
                {"type": "labels", "value": {"start": 18, "end": 22, "labels": ["LOC"]}},
                {"type": "relation", "from_id": "a", "to_id": "b"},
            ]
        }
    ],
}  # fmt: skip
SHAPES = {
    "doccano": {"id": 3, "text": TEXT, "label": [[0, 8, "PER"], [18, 22, "LOC"]]},
    "doccano, labels": {"text": TEXT, "labels": [[0, 8, "PER"], [18, 22, "LOC"]]},
    "doccano, old": {"data": TEXT, "label": [[0, 8, "PER"], [18, 22, "LOC"]]},
    "doccano, relations": {
        "text": TEXT,
        "entities": [
            {"id": 1, "label": "PER", "start_offset": 0, "end_offset": 8},
            {"id": 2, "label": "LOC", "start_offset": 18, "end_offset": 22},
        ],
        "relations": [],
        "Comments": [],
    },
    "Prodigy": {
        "text": TEXT,
        "tokens": [{"text": "Mia", "start": 0, "end": 3, "id": 0, "ws": True}],
        "spans": [span(0, 8, "PER", token_start=0, token_end=1), span(18, 22, "LOC")],
        "answer": "accept",
        "_input_hash": 1,
    },
    "spaCy": {"text": TEXT, "ents": [span(0, 8, "PER"), span(18, 22, "LOC")], "spans": {},
              "sents": [{"start": 0, "end": 23}], "tokens": [{"id": 0, "start": 0, "end": 3}]},
    "spaCy, training": [TEXT, {"entities": [[0, 8, "PER"], [18, 22, "LOC"]]}],
    "Label Studio": LABEL_STUDIO,
    "Label Studio, JSON-MIN": {
        "text": TEXT,
        "id": 1,
        "label": [
            {"start": 0, "end": 8, "text": "Mia Gold", "labels": ["PER"]},
            {"start": 18, "end": 22, "text": "Oslo", "labels": ["LOC"]},
        ],
        "annotator": 1,
    },
    "GLiNER": {
        "tokenized_text": ["Mia", "Gold", "moved", "to", "Oslo", "."],
        "ner": [[0, 1, "PER"], [4, 4, "LOC"]],
    },
    "GLiNER2": {
        "input": TEXT,
        "output": {"entities": {"PER": ["Mia Gold"], "LOC": ["Oslo"]},
                   "entity_descriptions": {"PER": "a person"}},
    },
    "hub, named tags": {
        "words": ["Mia", "Gold", "moved", "to", "Oslo", "."],
        "labels": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"],
    },
    "hub, pipeline": {
        "text": TEXT,
        "entities": [
            {"entity_group": "PER", "word": "Mia Gold", "start": 0, "end": 8, "score": 0.9},
            {"entity_group": "LOC", "word": "Oslo", "start": 18, "end": 22, "score": 0.8},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_tools_are_read(tmp_path, shape):
    result = read(tmp_path, "a.jsonl", [SHAPES[shape]])
    assert found(result) == [WANTED]
    array = read(tmp_path, "a.json", json.dumps([SHAPES[shape]], indent=1))
    assert found(array) == [WANTED]


def test_the_format_is_named(tmp_path):
    assert read(tmp_path, "a.jsonl", [SHAPES["Prodigy"]]).forms == ("Prodigy",)
    assert read(tmp_path, "b.json", json.dumps([LABEL_STUDIO])).forms == ("Label Studio",)
    assert read(tmp_path, "c.jsonl", [{"text": "x"}]).forms == ()


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "annotations": [{"from": 0, "to": 8, "what": "PER"}]},
        {"text": TEXT, "marks": [{"start": 0, "end": 8, "kind": "PER"}]},
        {"text": TEXT, "labels": ["PER"]},
        {"text": TEXT, "tags": {"PER": 1}},
        {"text": TEXT, "ner": "B-PER I-PER O O B-LOC O"},
        {"text": TEXT, "gold": [{"text": "Oslo", "type": "LOC"}]},
        {"text": TEXT, "spans": {"sc": [span(0, 8, "PER")]}},
        {"tokens": ["Mia", "went"], "columns": [["B-PER", 0], ["O", 1]], "result": [1]},
        {"entities": [{"text": "Oslo", "type": "LOC"}]},
    ],
)
def test_what_is_not_understood_is_refused_with_the_fields(tmp_path, row):
    with pytest.raises(DataError) as caught:
        read(tmp_path, "a.jsonl", [row])
    assert all(name in caught.value.message for name in row)


@pytest.mark.parametrize(
    "row",
    [
        {"text": TEXT, "id": 3, "meta": {"page": 1}, "source": "x", "score": 0.5},
        {"text": TEXT, "keywords": ["E-mail"], "title": "E-mail", "label": 1},
        {"text": TEXT, "labels": None, "relations": [], "topics": []},
    ],
)
def test_metadata_is_no_annotation(tmp_path, row):
    assert found(read(tmp_path, "a.jsonl", [row])) == [None]


def test_rejected_rows_are_left_out_and_counted(tmp_path):
    rejected = {**SHAPES["Prodigy"], "answer": "reject"}
    cancelled = {"data": {"text": TEXT}, "annotations": [{"was_cancelled": True, "result": []}]}
    result = read(tmp_path, "a.jsonl", [SHAPES["Prodigy"], rejected, cancelled])
    assert (len(result.examples), result.counts.rejected) == (1, 2)


def test_annotators_who_differ_are_refused(tmp_path):
    other = {"result": [{"type": "labels", "value": {"start": 0, "end": 3, "labels": ["PER"]}}]}
    task = {**LABEL_STUDIO, "annotations": [*LABEL_STUDIO["annotations"], other]}
    with pytest.raises(DataError, match="2 annotations that differ"):
        read(tmp_path, "a.json", json.dumps([task]))


def test_two_fields_that_differ_are_refused(tmp_path):
    row = {"text": TEXT, "spans": [span(0, 8, "PER")], "entities": []}
    assert found(read(tmp_path, "a.jsonl", [row])) == [[WANTED[0]]]
    row["entities"] = [{"text": "Oslo", "type": "LOC"}, {"text": "Mia Gold", "type": "PER"}]
    with pytest.raises(DataError, match="state different mentions"):
        read(tmp_path, "a.jsonl", [row])


def test_gold_ranges_are_taken_as_they_stand(tmp_path):
    text = "수진은 대전에서 왔다."
    row = {"text": text, "entities": [{"start": 4, "end": 6, "type": "place"}]}
    (example,) = read(tmp_path, "a.jsonl", [row]).examples
    assert found(read(tmp_path, "b.jsonl", [row])) == [[("대전", "place")]]
    assert example.tokens == ("수진은", "대전", "에서", "왔다", ".")
    assert example.without_gold().tokens == ("수진은", "대전에서", "왔다", ".")


def test_an_empty_file_is_an_error(tmp_path):
    for name in ("a.jsonl", "a.json", "a.conll", "a.txt", "a.csv"):
        content = {"a.json": "[]", "a.csv": "text\n"}.get(name, "\n \n")
        with pytest.raises(DataError, match="no sentence"):
            read(tmp_path, name, content)


def test_suffixes_fold_case(tmp_path):
    result = read(tmp_path, "A.JSONL.GZ", gzip.compress(b'{"text": "Mia left."}\n'))
    assert result.examples[0].text == "Mia left."


# --- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_csv_by_any_mark(tmp_path, mark):
    rows = [["id", "text"], ["1", "Mia moved"]]
    content = "\n".join(mark.join(row) for row in rows) + "\n"
    (example,) = read(tmp_path, "a.csv", content).examples
    assert example.text == "Mia moved"


def test_csv_with_mentions_as_json(tmp_path):
    cell = json.dumps([[0, 8, "PER"], [18, 22, "LOC"]]).replace('"', '""')
    assert found(read(tmp_path, "a.csv", f'text,label\n{TEXT},"{cell}"\n')) == [WANTED]
    with pytest.raises(DataError, match="not understood"):
        read(tmp_path, "b.csv", "text,label\nMia,B-PER\nleft,O\n")


# --- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        (["b-per", "i-per", "o", "o", "b-loc", "o"], "per loc"),
        (["PER-B", "PER-I", "O", "O", "LOC-B", "O"], "PER LOC"),
        (["B_PER", "I_PER", "O", "O", "B_LOC", "O"], "PER LOC"),
        (["PER", "PER", "O", "O", "LOC", "O"], "PER LOC"),
    ],
)
def test_other_spellings_of_tags(tmp_path, tags, wanted):
    words = ["Mia", "Gold", "moved", "to", "Oslo", "."]
    content = "".join(f"{w}\t{t}\n" for w, t in zip(words, tags, strict=True))
    first, second = wanted.split()
    assert found(read(tmp_path, "a.conll", content)) == [[("Mia Gold", first), ("Oslo", second)]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("Mia B\nGold I\nleft O\n", "no type"),
        ("Mia NNP\nleft VBD\n", "is none"),
        ("Mia 0.93\nleft 0.1\n", "is none"),
        ("Mia 0.93\nleft O\n", "is none"),
        ("1\tMia\tNNP\n2\tleft\tVBD\n", "third column"),
        ("Mia B-PER\rleft O\n", "carriage return"),
        ("Mia B-PER\rleft O\r", "carriage returns alone"),
        ("1\tMia\tB-PER\t_\n2\tleft\t?\t_\n", "no column holds a tag"),
    ],
)
def test_columns_that_are_no_tags_are_refused(tmp_path, content, problem):
    with pytest.raises(DataError, match=problem) as caught:
        read(tmp_path, "a.conll", content)
    assert caught.value.hint


CONLLU = """# sent_id = 1
# text = Del mar a Rio.
1-2\tDel\t_\t_\t_\t_\t_\t_\t_\t_
1\tDe\tde\tADP\t_\t_\t3\tcase\t_\t{0}
2\tel\tel\tDET\t_\t_\t3\tdet\t_\t{0}
3\tmar\tmar\tNOUN\t_\t_\t0\troot\t_\t{0}
4\ta\ta\tADP\t_\t_\t5\tcase\t_\t{0}
5\tRio\tRio\tPROPN\t_\t_\t3\tnmod\t_\tSpaceAfter=No|{1}
5.1\tx\tx\tX\t_\t_\t_\t_\t_\t_
6\t.\t.\tPUNCT\t_\t_\t3\tpunct\t_\t{0}

"""


def test_conllu_takes_form_text_and_the_tag_in_misc(tmp_path):
    result = read(tmp_path, "a.conllu", CONLLU.format("NER=O", "NER=B-LOC"))
    assert [e.text for e in result.examples] == ["Del mar a Rio."]
    assert found(result) == [[("Rio", "LOC")]]
    treebank = read(tmp_path, "b.conllu", CONLLU.format("_", "_"))
    assert found(treebank) == [None]
    with pytest.raises(DataError, match="place of tags is none"):
        read(tmp_path, "c.conllu", CONLLU.format("_", "Entity=(e1-place)"))


def test_universal_ner_takes_the_second_column(tmp_path):
    lines = ("我\tO", "在\tO", "北京\tB-LOC", "。\tO")
    content = "# text = 我在北京。\n" + "".join(
        f"{number}\t{line}\t-\t-\n" for number, line in enumerate(lines, start=1)
    )
    result = read(tmp_path, "a.iob2", content)
    assert [e.text for e in result.examples] == ["我在北京。"]
    assert found(result) == [[("北京", "LOC")]]


def test_tokens_that_do_not_spell_their_text_are_refused(tmp_path):
    row = {"text": "Mia left", "tokens": ["Bo", "left"], "ner_tags": ["B-PER", "O"]}
    with pytest.raises(DataError, match="do not spell"):
        read(tmp_path, "a.jsonl", [row])
    bare = read(tmp_path, "b.jsonl", [{"text": "Mia left", "tokens": ["Bo", "left"]}])
    assert bare.examples[0].text == "Mia left"


def test_a_document_mark_ends_a_sentence(tmp_path):
    content = "Mia B-PER\nleft O\n-DOCSTART- O\nBo B-PER\nsat O\n"
    assert [e.text for e in read(tmp_path, "a.conll", content).examples] == ["Mia left", "Bo sat"]


def test_wide_blanks_part_columns(tmp_path):
    result = read(tmp_path, "a.conll", "Mia\u00a0B-PER\nleft\u00a0O\n")
    assert found(result) == [[("Mia", "PER")]]


def test_scores_behind_the_tag_are_no_tags(tmp_path):
    result = read(tmp_path, "a.conll", "Mia NNP B-PER 0.9\nleft VBD O 0.8\n")
    assert found(result) == [[("Mia", "PER")]]


@pytest.mark.parametrize("content", ["She sent an E-mail\n", "My blood group is O\n"])
def test_prose_that_ends_like_a_tag_is_a_sentence(tmp_path, content):
    result = read(tmp_path, "a.txt", content)
    assert [e.text for e in result.examples] == [content.strip()]


def test_numbered_sentences_are_no_columns(tmp_path):
    with pytest.raises(DataError, match="neither CoNLL columns nor plain"):
        read(tmp_path, "a.txt", "1\tMia ran to Oslo.\n2\tBo sat.\n")


# --- folders ------------------------------------------------------------------------------------


def test_brat(tmp_path):
    (tmp_path / "a.txt").write_text(f"A line.\n{TEXT}\n", encoding="utf-8")
    note = (
        "T1\tPER 8 16\tMia Gold\nT2\tLOC 26 30\tOslo\nR1\tlives Arg1:T1 Arg2:T2\n#1\tNote T1\tx\n"
    )
    (tmp_path / "a.ann").write_text(note, encoding="utf-8")
    for name in ("a.txt", "a.ann"):
        result = read_examples(tmp_path / name)
        assert (found(result), result.forms) == ([[], WANTED], ("brat",))
    for bad, problem in (
        ("T1\tPER 8 11;12 16\tMia Gold\n", "several parts"),
        ("T1\tPER 9 16\tMia Gold\n", "is not 'Mia Gold'"),
        ("T1 PER 8 16\n", "no mention of brat"),
    ):
        (tmp_path / "a.ann").write_text(bad, encoding="utf-8")
        with pytest.raises(DataError, match=problem):
            read_examples(tmp_path / "a.txt")


def test_spacy_corpora_need_spacy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(PreconditionError, match="not installed"):
        read(tmp_path, "a.spacy", b"x")


def write_shards(folder, count):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        table = pa.table({"tokens": [["Bo", str(i)]], "ner_tags": [["B-PER", "O"]]})
        pq.write_table(table, folder / f"train-{i:05}-of-00002.parquet")


def test_shards_are_one_split(tmp_path):
    write_shards(tmp_path / "data", 2)
    for source in (tmp_path, tmp_path / "data"):
        split = load_split(DatasetSpec(str(source)), "train")
        assert [e.text for e in split.examples] == ["Bo 0", "Bo 1"]
        assert len(split.files) == 2


def test_a_missing_shard_is_an_error(tmp_path):
    write_shards(tmp_path, 1)
    with pytest.raises(DataError, match="not all of them"):
        load_split(DatasetSpec(str(tmp_path)), "train")
    whole = DatasetSpec(str(tmp_path), {"train": "train-00000-of-00002"})
    assert len(load_split(whole, "train").examples) == 1


def test_what_save_to_disk_leaves(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        tokens=datasets.Sequence(datasets.Value("string")),
        labels=datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"])),
    )
    rows = datasets.Dataset.from_dict({"tokens": [["Bo", "sat"]], "labels": [[1, 0]]}, features)
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=rows, validation=rows).save_to_disk(str(tmp_path / "two"))
    for source, split in (("one", "train"), ("two", "train"), ("two", "dev")):
        loaded = load_split(DatasetSpec(str(tmp_path / source)), split)
        assert [[e.span_text(s) for s in e.gold] for e in loaded.examples] == [["Bo"]]
        assert loaded.labels == ("PER",)
    with pytest.raises(DataError, match="has no split 'test'") as caught:
        load_split(DatasetSpec(str(tmp_path / "two")), "test")
    assert "it has: train, validation, dev" in caught.value.hint
