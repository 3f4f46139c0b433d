"""Export: files that the datasets library reads back."""

from __future__ import annotations

import json
import sys

import pytest

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.codec import identity_digest
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.export import export_records

IDENTITIES = ({"prompt": "p", "versions": {"a": "1"}}, {"prompt": "p", "versions": {}})


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "s.jsonl"
    with CompletionStore(path) as writing:
        writing.append(
            Record(
                "1" * 16,
                "Ada\u2028 \ud800",
                "A",
                (Completion("[]", None, 2, "stop"), Completion("x", -0.5, 9, "length")),
                IDENTITIES[0],
                pseudo_label=(Entity("Ada", "person"),),
                confidence=0.5,
                created="now",
                seconds=2,
                extra={"note": [1]},
            )
        )
        empty = Completion("[]", -1, 2, "stop")
        writing.append(Record("2" * 16, "b", "B", (empty,), IDENTITIES[1], created="now"))
    return CompletionStore(path)


EXPECTED_FIRST = {
    "input_id": "1" * 16,
    "text": "Ada\u2028 \ufffd",
    "model": "A",
    "completions": [
        {"text": "[]", "mean_logprob": None, "num_tokens": 2, "finish": "stop"},
        {"text": "x", "mean_logprob": -0.5, "num_tokens": 9, "finish": "length"},
    ],
    "label_at_generation": [{"text": "Ada", "type": "person"}],
    "confidence_at_generation": 0.5,
    "created": "now",
    "seconds": 2.0,
    "identity_digest": identity_digest(IDENTITIES[0]),
    "identity": '{"prompt":"p","versions":{"a":"1"}}',
    "extra": '{"note":[1]}',
}


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_the_datasets_library_reads_what_was_written(store, tmp_path, name):
    datasets = pytest.importorskip("datasets")
    report = store.export(tmp_path / name)
    assert (report.records, report.replaced_characters) == (2, 1)
    assert report.bytes == (tmp_path / name).stat().st_size
    kind = "json" if name.endswith("jsonl") else "parquet"
    rows = datasets.load_dataset(
        kind, data_files=str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(rows) == 2
    assert rows[0] == EXPECTED_FIRST
    assert rows[1]["label_at_generation"] == []
    assert rows[1]["extra"] == "{}"


def test_json_lines_hold_the_same_columns(store, tmp_path):
    store.export(tmp_path / "out.txt", "jsonl", models=["A"])
    (only,) = (tmp_path / "out.txt").read_bytes().removesuffix(b"\n").split(b"\n")
    assert json.loads(only) == EXPECTED_FIRST


def test_an_empty_export_keeps_its_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert export_records([], tmp_path / "e.parquet").records == 0
    assert set(parquet.read_table(tmp_path / "e.parquet").column_names) == set(EXPECTED_FIRST)


def test_the_format_is_known_or_refused(store, tmp_path):
    with pytest.raises(UsageError, match="csv"):
        store.export(tmp_path / "out.csv")
    with pytest.raises(UsageError, match="out is no"):
        store.export(tmp_path / "out")


def test_a_failed_export_leaves_the_old_file(store, tmp_path, monkeypatch):
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PreconditionError, match="pyarrow") as caught:
        store.export(out)
    assert "pip install pyarrow" in caught.value.hint
    assert out.read_bytes() == b"old"
