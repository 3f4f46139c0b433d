"""Nothing is written over a file that is not ours, nor is a store replaced by what is none."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.errors import IntegrityError, UsageError
from ccrl_cli.records import Completion, Record, content_id
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.ownership import check_writable_store, refuse_over_store

NOTES = b"important notes without a newline"


def store_with(path, *texts):
    with CompletionStore(path) as store:
        for text in texts:
            done = (Completion("[]", None, 2, "stop"),)
            store.append(Record(content_id(text), text, "m", done, {"prompt": "p"}))
    return path


@pytest.mark.parametrize(
    "content",
    [NOTES, b"a\nb\n", b'{"text": "my data"}\n', b"[1]\n", b"\x00\x01", b'{"schema": 1}\n'],
)
def test_a_foreign_file_is_not_written_to(tmp_path, content):
    place = tmp_path / "notes.txt"
    place.write_bytes(content)
    with pytest.raises(UsageError, match="no store of ccrl"), CompletionStore(place):
        raise AssertionError("opened")
    assert place.read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "inp'.replace(b": ", b":"), b"\n\n"])
def test_an_empty_or_torn_store_is_ours(tmp_path, content):
    place = tmp_path / "st.jsonl"
    place.write_bytes(content)
    if content != b"\n\n":
        check_writable_store(place)
    store_with(tmp_path / "other.jsonl", "x")
    check_writable_store(tmp_path / "other.jsonl")
    check_writable_store(tmp_path / "none.jsonl")


@pytest.mark.parametrize("link", [False, True])
def test_a_store_is_not_exported_onto_itself(tmp_path, link):
    place = store_with(tmp_path / "st.jsonl", "a", "b")
    before = place.read_bytes()
    target = place
    if link:
        target = tmp_path / "link.jsonl"
        try:
            target.symlink_to(place)
        except OSError:
            pytest.skip("no symbolic links here")
    with pytest.raises(UsageError, match="is a store of completions"):
        CompletionStore(place).export(target)
    assert place.read_bytes() == before


def test_an_export_may_be_written_again(tmp_path):
    place = store_with(tmp_path / "st.jsonl", "a")
    for _ in range(2):
        CompletionStore(place).export(tmp_path / "out.jsonl")
    refuse_over_store(tmp_path / "out.jsonl")
    refuse_over_store(tmp_path / "none")


def test_a_line_nested_too_deeply_is_a_bad_line(tmp_path):
    place = store_with(tmp_path / "st.jsonl", "a")
    row = json.loads(place.read_text(encoding="utf-8"))
    deep = json.dumps({**row, "input_id": "0" * 16, "x": 0}).replace(
        '"x": 0', '"x": ' + "[" * 9000 + "]" * 9000
    )
    place.write_text(place.read_text(encoding="utf-8") + deep + "\n", encoding="utf-8")
    with pytest.raises(IntegrityError, match="line 2"):
        len(CompletionStore(place))
