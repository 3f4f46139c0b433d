from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from ccrl_cli.data.catalog import (
    DatasetSpec,
    available_splits,
    load_split,
    without_duplicates,
)
from ccrl_cli.data.examples import from_tokens
from ccrl_cli.data.hub import hub_rows
from ccrl_cli.errors import DataError, PreconditionError
from ccrl_cli.records import Span

ROWS = {
    "train": [("a b", ["B-y", "O"]), ("c", ["O"])],
    "valid": [("d", ["B-x"])],
    "test": [("e", ["B-z"]), ("f", ["B-x"]), ("a b", ["B-y", "O"])],
}


def jsonl(rows):
    return "".join(
        json.dumps({"tokens": text.split(), "ner_tags": tags}) + "\n" for text, tags in rows
    )


@pytest.fixture
def folder(tmp_path):
    for name, rows in ROWS.items():
        (tmp_path / f"{name}.jsonl").write_text(jsonl(rows), encoding="utf-8")
    return tmp_path


# --- local sources ------------------------------------------------------------------------------


def test_a_folder_has_splits_and_one_list_of_labels(folder):
    assert available_splits(folder) == ("train", "dev", "test")
    for split, size in (("train", 2), ("dev", 1), ("test", 3)):
        loaded = load_split(folder, split)
        assert len(loaded.examples) == loaded.counts.sentences == size
        assert loaded.labels == ("x", "y", "z")
        assert (loaded.name, loaded.split) == (str(folder), split)
    assert load_split(folder, "dev").files[0][0] == "valid.jsonl"


def test_splits_can_be_renamed_and_joined(folder):
    spec = DatasetSpec(str(folder), splits={"train": "train+valid", "test": "valid"})
    joined = load_split(spec, "train")
    assert [e.text for e in joined.examples] == ["a b", "c", "d"]
    assert [name for name, _ in joined.files] == ["train.jsonl", "valid.jsonl"]
    assert load_split(spec, "test").examples == joined.examples[2:]


def test_a_file_is_every_split_of_itself(folder):
    path = folder / "test.jsonl"
    assert available_splits(path) == ("train", "dev", "test")
    assert load_split(path, "train").examples == load_split(path, "test").examples
    assert load_split(path, "train").labels == ("x", "y", "z")


def test_labels_select_types_and_what_is_left_out_is_counted(folder):
    spec = DatasetSpec(str(folder), labels=("z", "y", "unseen"))
    loaded = load_split(spec, "test")
    assert loaded.labels == ("z", "y", "unseen")
    assert [e.gold for e in loaded.examples] == [(Span(0, 1, "z"),), (), (Span(0, 1, "y"),)]
    assert (loaded.counts.other_types, loaded.counts.mentions) == (1, 2)
    assert loaded.counts.without_mention == 1
    with pytest.raises(DataError, match="no gold mention") as caught:
        load_split(DatasetSpec(str(folder), labels=("X",)), "test")
    assert "x, y, z" in caught.value.hint


def test_labels_can_list_the_tags_of_numbers(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"tokens": ["a"], "ner_tags": [2]}\n')
    spec = DatasetSpec(str(tmp_path), labels=("O", "B-x", "B-art-film", "I-x", "I-art-film"))
    loaded = load_split(spec, "train")
    assert loaded.labels == ("x", "art-film")
    assert loaded.examples[0].gold == (Span(0, 1, "art-film"),)


def test_a_limit_keeps_the_first_and_is_counted(folder):
    loaded = load_split(DatasetSpec(str(folder), max_samples=2), "test")
    assert [e.text for e in loaded.examples] == ["e", "f"]
    assert (loaded.counts.sentences, loaded.counts.truncated) == (2, 1)
    assert loaded.labels == ("x", "y", "z")
    with pytest.raises(DataError, match="at most 0"):
        DatasetSpec(str(folder), max_samples=0)


def test_digest_sees_text_gold_and_labels_but_not_the_file(folder, tmp_path):
    digest = load_split(folder, "test").digest
    copy = tmp_path / "copy.jsonl.gz"
    copy.write_bytes(gzip.compress((folder / "test.jsonl").read_bytes()))
    assert load_split(copy, "test").digest == digest
    assert load_split(copy, "test").files != load_split(folder, "test").files
    others = [DatasetSpec(str(copy), labels=("z", "x", "y")), DatasetSpec(str(copy), max_samples=2)]
    assert len({digest, *(load_split(spec, "test").digest for spec in others)}) == 3


def test_a_folder_with_corpus_toml_is_read_as_markup(tmp_path):
    (tmp_path / "corpus.toml").write_text(
        'name = "mine"\ndescription = "d"\nlicense = "CC0-1.0"\nlabels = ["t_u", "v"]\n'
        '[type_names]\nt_u = "tea"\n',
        encoding="utf-8-sig",
    )
    (tmp_path / "train.txt").write_text("[A|t_u] b\n", encoding="utf-8")
    loaded = load_split(tmp_path, "train")
    assert loaded.labels == ("t_u", "v")
    assert loaded.type_names == {"t_u": "tea"}
    assert loaded.examples[0].gold == (Span(0, 1, "t_u"),)
    assert available_splits(tmp_path) == ("train",)
    with pytest.raises(DataError, match="no split 'test'"):
        load_split(tmp_path, "test")
    (tmp_path / "corpus.toml").write_text("labels = 3", encoding="utf-8")
    with pytest.raises(DataError, match="does not describe"):
        load_split(tmp_path, "train")


def test_missing_and_doubtful_sources_are_refused(folder):
    with pytest.raises(PreconditionError, match="does not exist"):
        load_split(folder / "none", "train")
    (folder / "test.conll").write_text("a\tO\n")
    with pytest.raises(DataError, match="several files"):
        load_split(folder, "test")
    with pytest.raises(DataError, match="no file for split 'extra'") as caught:
        load_split(DatasetSpec(str(folder), labels=("x",)), "extra")
    assert "train.jsonl" in caught.value.hint


def test_unlabelled_sources_have_no_labels_of_their_own(tmp_path):
    (tmp_path / "train.txt").write_text("Vega flew.\n")
    loaded = load_split(tmp_path, "train")
    assert (loaded.labels, loaded.counts.labelled) == ((), 0)
    assert load_split(DatasetSpec(str(tmp_path), labels=("x",)), "train").labels == ("x",)


def test_duplicates_are_dropped_from_training_inputs_only_on_request(folder):
    train, test = load_split(folder, "train").examples, load_split(folder, "test").examples
    kept, dropped = without_duplicates([*train, *train], exclude=test)
    assert ([e.text for e in kept], dropped) == (["c"], 3)
    assert without_duplicates([from_tokens(["a"])]) == ((from_tokens(["a"]),), 0)


# --- samples ------------------------------------------------------------------------------------


def test_every_sample_loads_in_every_split_it_states():
    for name in ("newswire", "spaceflight"):
        for split in available_splits(f"sample:{name}"):
            loaded = load_split(f"sample:{name}", split)
            assert loaded.labels
            assert loaded.counts.labelled == len(loaded.examples)


def test_unknown_sample_names_the_nearest():
    with pytest.raises(DataError) as caught:
        load_split("sample:newswires", "train")
    assert "sample:newswire?" in caught.value.hint
    with pytest.raises(DataError) as caught:
        load_split("sample:../newswire", "train")
    with pytest.raises(DataError) as caught:
        load_split("sample:zzz", "train")
    assert "sample:newswire, sample:spaceflight" in caught.value.hint


# --- hub ----------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """Serve one data set in place of the hub, and record what was asked for."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-x", "I-x"])),
        }
    )
    rows = {"id": ["0", "1"], "tokens": [["a", "b"], ["c"]], "ner_tags": [[1, 2], [0]]}
    served = datasets.DatasetDict(validation=datasets.Dataset.from_dict(rows, features=features))
    asked = []

    def load_dataset(identifier, config, revision):
        asked.append((identifier, config, revision))
        return served

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_hub_data_takes_tag_names_from_its_features(hub):
    loaded = load_split("hub:owner/name:fine@abc123", "dev")
    assert hub == [("owner/name", "fine", "abc123")]
    assert [e.gold for e in loaded.examples] == [(Span(0, 2, "x"),), ()]
    assert (loaded.labels, loaded.files) == (("x",), ())
    load_split("hub:name", "validation")
    assert hub[-1] == ("name", None, None)
    with pytest.raises(DataError, match="no split 'test'") as caught:
        load_split("hub:name", "test")
    assert "validation" in caught.value.hint


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("offline"), PreconditionError),
        (FileNotFoundError("no such set"), PreconditionError),
        (ValueError("Config name is missing"), DataError),
        (RuntimeError("Dataset scripts are no longer supported"), DataError),
    ],
)
def test_hub_failures_become_one_sentence(hub, monkeypatch, error, expected):
    import datasets

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(expected, match=str(error)) as caught:
        load_split("hub:owner/name", "train")
    assert caught.value.hint


def test_hub_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(PreconditionError) as caught:
        list(hub_rows("owner/name", "train"))
    assert "pip install" in caught.value.hint
    with pytest.raises(DataError, match="does not name"):
        list(hub_rows("not a name", "train"))


# --- public data --------------------------------------------------------------------------------

DATA = os.environ.get("CCRL_DATA_DIR")
needs_data = pytest.mark.skipif(not DATA, reason="CCRL_DATA_DIR is not set")

# set: sentences of train, dev, test; types; sentences minus distinct sentences of each split
PUBLIC = {
    "conll2003": ((14041, 3250, 3453), 4, (1350, 180, 269)),
    "wikigold": ((1226, 224, 246), 4, (1, 1, 0)),
    "wnut17": ((3394, 1009, 1287), 6, (103, 3, 7)),
    "crossner_politics": ((200, 541, 651), 9, (0, 1, 0)),
    "crossner_science": ((200, 450, 543), 17, (1, 4, 11)),
    "crossner_music": ((100, 380, 465), 13, (1, 5, 8)),
    "fewnerd_inter36": ((14412, 5000, 5000), 36, (0, 0, 0)),
    "fewnerd_sup_mini": ((1000, None, 101), 65, (0, None, 0)),
}

# pairs of splits with published duplicates: (set, left, right, distinct sentences in both)
SHARED = [
    ("conll2003", "train", "dev", 129),
    ("conll2003", "train", "test", 78),
    ("crossner_music", "dev", "test", 17),
    ("crossner_music", "train", "test", 6),
    ("crossner_science", "dev", "test", 11),
]


def texts(name, split):
    return {example.text for example in load_split(Path(DATA) / name, split).examples}


@needs_data
@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_load_with_their_published_counts(name):
    sizes, num_types, duplicates = PUBLIC[name]
    source = Path(DATA) / name
    expected = json.loads((Path(DATA) / "labels.json").read_text())[name]
    hashes = dict(
        line.split()[::-1] for line in (Path(DATA) / "SHA256SUMS").read_text().splitlines()
    )
    spec = DatasetSpec(str(source), labels=tuple(expected))
    for split, size, repeated in zip(("train", "dev", "test"), sizes, duplicates, strict=True):
        assert (split in available_splits(source)) == (size is not None)
        if size is None:
            continue
        loaded = load_split(spec, split)
        counts = loaded.counts
        assert (counts.sentences, counts.labelled, counts.duplicates) == (size, size, repeated)
        assert counts.empty == counts.repaired_tags == counts.converted_tags == 0
        assert counts.other_types == counts.truncated == 0
        ((file, sha256),) = loaded.files
        assert sha256 in [v for k, v in hashes.items() if k.lstrip("*./") == f"{name}/{file}"]
    assert len(expected) == num_types


@needs_data
@pytest.mark.parametrize(("name", "left", "right", "shared"), SHARED)
def test_published_duplicates_between_splits_are_kept(name, left, right, shared):
    assert len(texts(name, left) & texts(name, right)) == shared


@needs_data
def test_labels_come_from_all_splits_of_a_public_set():
    expected = json.loads((Path(DATA) / "labels.json").read_text())["fewnerd_sup_mini"]
    loaded = load_split(Path(DATA) / "fewnerd_sup_mini", "test")
    assert list(loaded.labels) == sorted(expected)
