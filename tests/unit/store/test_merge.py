"""Merging shards: union, conflicts, sources untouched."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import orjson
import pytest

from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.records import Completion, Record
from ccrl_cli.store.codec import record_to_json
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.locks import WriterLock
from ccrl_cli.store.merge import merge
from ccrl_cli.store.shards import parse_shard, shard_of, shard_path, shard_paths
from held import hold


def line(input_id, model="A", answer="[]", created="t", **extra):
    record = Record(
        input_id,
        "text",
        model,
        (Completion(answer, None, 1, "stop"),),
        {"prompt": "p"},
        created=created,
        extra=extra,
    )
    return orjson.dumps(record_to_json(record)) + b"\n"


def write(path, *lines):
    path.write_bytes(b"".join(lines))
    return path


def test_the_union_is_sorted_and_sources_stay(tmp_path):
    first = write(tmp_path / "a.jsonl", line("2"), line("1", "B"))
    second = write(tmp_path / "b.jsonl", line("1", "A"), line("2"))
    report = merge([first, second], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == line("1", "A") + line("1", "B") + line("2")
    assert (report.lines, report.records, report.duplicates, report.torn_bytes) == (4, 3, 1, 0)
    assert report.sources == (first, second)
    assert first.read_bytes() == line("2") + line("1", "B")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl", "out.jsonl"]


def test_what_the_target_holds_is_part_of_the_union(tmp_path):
    out = write(tmp_path / "out.jsonl", line("3"))
    merge([write(tmp_path / "a.jsonl", line("1"))], out)
    assert out.read_bytes() == line("1") + line("3")


def test_no_source_is_open_when_the_target_is_replaced(tmp_path, monkeypatch):
    out = write(tmp_path / "out.jsonl", line("3"))
    opened = []
    real_open = io.open

    def recorded(*arguments, **options):
        stream = real_open(*arguments, **options)
        opened.append(stream)
        return stream

    monkeypatch.setattr(io, "open", recorded)
    monkeypatch.setattr("builtins.open", recorded)
    hold(monkeypatch, lambda *_: not all(stream.closed for stream in opened))
    merge([write(tmp_path / "a.jsonl", line("1"))], out)
    assert out.read_bytes() == line("1") + line("3")
    assert any(Path(stream.name) == out for stream in opened)


def test_a_conflict_in_compressed_sources_is_said_and_leaves_no_copies(tmp_path):
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(line("1", answer="a")))
    other = write(tmp_path / "b.jsonl", line("1", answer="b"))
    for sources in ([packed, other], [other, packed]):
        with pytest.raises(IntegrityError, match="different completions"):
            merge(sources, tmp_path / "out.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl.gz", "b.jsonl"]


def test_overwritten_versions_stay(tmp_path):
    shard = write(tmp_path / "a.jsonl", line("1", answer="new", overwrites=1))
    out = write(tmp_path / "out.jsonl", line("1", answer="old"))
    merge([shard], out)
    assert out.read_bytes() == line("1", answer="old") + line("1", answer="new", overwrites=1)
    assert [record.completions[0].text for record in CompletionStore(out).records()] == ["new"]


def test_unknown_fields_stay_byte_for_byte(tmp_path):
    odd = b'{"note": {"x": 1.50}, ' + line("1")[1:]
    merge([write(tmp_path / "a.jsonl", odd)], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == odd


def test_a_contradiction_names_both_places_and_writes_nothing(tmp_path):
    first = write(tmp_path / "a.jsonl", line("1"), line("2", answer="x"))
    second = write(tmp_path / "b.jsonl", line("2", answer="y"))
    with pytest.raises(IntegrityError) as caught:
        merge([first, second], tmp_path / "out.jsonl")
    assert "b.jsonl, line 1" in caught.value.message
    assert "a.jsonl, line 2" in caught.value.message
    assert not (tmp_path / "out.jsonl").exists()


def test_compressed_sources_and_torn_tails(tmp_path):
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(line("2") + line("1")))
    torn = write(tmp_path / "b.jsonl", line("3"), b'{"sch')
    out = write(tmp_path / "out.jsonl", line("4"), b"12345678")
    report = merge([packed, torn], out)
    assert out.read_bytes() == line("1") + line("2") + line("3") + line("4")
    assert report.torn_bytes == 5 + 8
    assert (tmp_path / "out.jsonl.torn").read_bytes() == b"12345678\n"
    assert not list(tmp_path.glob(".merge-*"))


def test_bad_lines_missing_files_and_busy_targets(tmp_path):
    bad = write(tmp_path / "bad.jsonl", line("1"), b"{}\n")
    out = tmp_path / "out.jsonl"
    with pytest.raises(IntegrityError, match=r"bad\.jsonl, line 2"):
        merge([bad], out)
    with pytest.raises(PreconditionError, match="none"):
        merge([tmp_path / "none.jsonl"], out)
    with pytest.raises(UsageError):
        merge([], out)
    with pytest.raises(UsageError, match="compressed"):
        merge([bad], tmp_path / "out.jsonl.gz")
    with WriterLock(out), pytest.raises(PreconditionError, match=str(os.getpid())):
        merge([bad], out)


def test_shards_are_counted_from_one():
    assert parse_shard("1/4") == (1, 4)
    assert parse_shard(" 4 / 4 ") == (4, 4)
    for text in ("0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/2/3", "", "²/3"):
        with pytest.raises(UsageError, match="shard"):
            parse_shard(text)


def test_shard_paths(tmp_path):
    store = tmp_path / "a.b.jsonl"
    assert shard_path(store, 2, 4) == tmp_path / "a.b.2-of-4.jsonl"
    assert shard_path(Path("plain"), 1, 1) == Path("plain.1-of-1.jsonl")
    for name in ("a.b.2-of-4.jsonl", "a.b.1-of-4.jsonl", "axb.1-of-4.jsonl", "a.b.jsonl"):
        (tmp_path / name).write_bytes(b"")
    assert shard_paths(store) == [tmp_path / "a.b.1-of-4.jsonl", tmp_path / "a.b.2-of-4.jsonl"]
    assert shard_paths(tmp_path / "none" / "x.jsonl") == []


def test_shard_assignment_never_changes():
    # int.from_bytes(sha256(id)[:8]) % n + 1; fixed so that shards of two versions agree
    assert [shard_of(f"{number:016x}", 4) for number in range(8)] == [4, 2, 3, 2, 3, 1, 3, 3]
    assert {shard_of(f"{number:016x}", 1) for number in range(50)} == {1}
