"""Counts, verification and repair of a store."""

from __future__ import annotations

import gzip

import orjson
import pytest

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.records import Completion, Record, content_id
from ccrl_cli.store.codec import identity_digest, record_to_json
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.inspection import BadLine
from ccrl_cli.store.locks import WriterLock

FIRST = {"prompt": "p", "versions": {"torch": "1"}}
NEWER = {"prompt": "p", "versions": {"torch": "2"}}
OTHER = {"prompt": "q", "versions": {}}


def line(text, model="A", *, answer="[]", k=2, identity=FIRST, created="t", **extra):
    completions = (Completion(answer, None, 1, "stop"),) * k
    input_id = extra.pop("input_id", content_id(text))
    record = Record(input_id, text, model, completions, identity, created=created, extra=extra)
    return orjson.dumps(record_to_json(record)) + b"\n"


def write(path, *lines):
    path.write_bytes(b"".join(lines))
    return path


def test_counts_by_model_and_identity(tmp_path):
    path = write(
        tmp_path / "s.jsonl",
        line("a"),
        line("b", identity=NEWER),
        line("c", k=4, identity=OTHER),
        line("a", created="later"),
        line("a", "B", k=1),
        line("a", "B", k=3, overwrites=1),
        b'{"torn',
    )
    info = CompletionStore(path).info()
    assert (info.lines, info.records, info.inputs) == (6, 4, 3)
    assert (info.duplicates, info.replaced, info.torn_bytes) == (1, 1, 6)
    assert info.bytes == path.stat().st_size
    first, second = info.models
    assert (first.model, first.records, first.completions) == ("A", 3, 2 + 2 + 4)
    assert first.num_completions == {2: 2, 4: 1}
    assert [(item.digest, item.records) for item in first.identities] == [
        (identity_digest(FIRST), 2),  # versions make no other identity
        (identity_digest(OTHER), 1),
    ]
    assert first.identities[0].identity == FIRST
    assert (second.model, second.records, second.completions) == ("B", 1, 3)


def test_a_sound_store(tmp_path):
    path = write(tmp_path / "s.jsonl", line("a"), line("b"), b"{")
    before = path.read_bytes()
    found = CompletionStore(path).verify()
    assert found.ok
    assert (found.lines, found.records, found.bad, found.torn_bytes) == (2, 2, (), 1)
    assert found.foreign_ids == 0
    assert path.read_bytes() == before


def test_every_bad_line_is_found_and_nothing_is_changed(tmp_path):
    broken = orjson.loads(line("d"))
    broken["completions"][0]["finish"] = "?"
    path = write(
        tmp_path / "s.jsonl",
        line("a"),
        b"\n",
        b"{}\n",
        line("b"),
        line("a", answer="x"),
        orjson.dumps(broken) + b"\n",
        line("c", input_id="0" * 16),
    )
    before = path.read_bytes()
    found = CompletionStore(path).verify()
    assert not found.ok
    assert [bad.number for bad in found.bad] == [2, 3, 5, 6]
    assert found.bad[1] == BadLine(3, "schema None is not 1, the one this version reads")
    assert "different content" in found.bad[2].reason
    assert (found.records, found.foreign_ids) == (3, 1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_repair_moves_bad_lines_and_deletes_nothing(tmp_path):
    bad = [b"not json\n", line("a", answer="x"), b"\xff\x00\n"]
    path = write(
        tmp_path / "s.jsonl", line("a"), bad[0], line("b"), bad[1], bad[2], line("c"), b'{"to'
    )
    store = CompletionStore(path)
    found = store.verify(repair=True)
    assert found.ok
    assert found.torn_bytes == 4
    assert [item.number for item in found.bad] == [2, 4, 5]
    assert found.side_file == tmp_path / "s.jsonl.bad"
    assert path.read_bytes() == line("a") + line("b") + line("c")
    assert found.side_file.read_bytes() == b"".join(bad)
    assert (tmp_path / "s.jsonl.torn").read_bytes() == b'{"to\n'
    assert [record.text for record in store.records()] == ["a", "b", "c"]
    again = store.verify(repair=True)
    assert (again.bad, again.side_file, again.torn_bytes) == ((), None, 0)
    assert found.side_file.read_bytes() == b"".join(bad)


def test_a_second_repair_adds_to_the_side_file(tmp_path):
    path = write(tmp_path / "s.jsonl", b"one\n", line("a"))
    CompletionStore(path).verify(repair=True)
    path.write_bytes(path.read_bytes() + b"two\n")
    CompletionStore(path).verify(repair=True)
    assert (tmp_path / "s.jsonl.bad").read_bytes() == b"one\ntwo\n"


def test_compressed_stores_are_checked_and_not_repaired(tmp_path):
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(gzip.compress(line("a") + line("a", answer="x") + b"x\n"))
    found = CompletionStore(path).verify()
    assert [bad.number for bad in found.bad] == [2, 3]
    with pytest.raises(UsageError, match="compressed"):
        CompletionStore(path).verify(repair=True)


def test_repair_of_a_busy_or_missing_store(tmp_path):
    path = write(tmp_path / "s.jsonl", line("a"))
    with WriterLock(path), pytest.raises(PreconditionError, match="being written"):
        CompletionStore(path).verify(repair=True)
    with pytest.raises(PreconditionError, match="cannot be read"):
        CompletionStore(tmp_path / "none.jsonl").verify(repair=True)
    assert list(tmp_path.iterdir()) == [path]
