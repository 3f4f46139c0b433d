"""Stores cut at any byte, merged in any order, read after any text."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ccrl_cli.errors import IntegrityError
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.codec import record_from_json, record_to_json
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.encoding import dump_json, load_json
from ccrl_cli.store.index import StoreIndex
from ccrl_cli.store.jsonl import JsonlReader, JsonlWriter, bad_line
from ccrl_cli.store.merge import merge


def has_pair(text):
    """Two surrogate halves side by side, which join into one character on reading."""
    return any(
        "\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in itertools.pairwise(text)
    )


RARE = st.sampled_from(["\u2028", "\u2029", "\x85", "\r", "\n", "\r\n", "\x0b", "\x1c", "\x00"])
STRANGE_TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=())).filter(lambda text: not has_pair(text)),
    st.lists(st.one_of(RARE, st.just("x"))).map("".join),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | STRANGE_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRANGE_TEXTS, inner, max_size=3),
    max_leaves=6,
)
COMPLETIONS = st.builds(
    Completion,
    STRANGE_TEXTS,
    st.none() | FLOATS,
    st.integers(0, 10**6),
    st.sampled_from(["stop", "length", "error"]),
)
RECORDS = st.builds(
    Record,
    input_id=st.sampled_from(["a" * 16, "b" * 16, "c" * 16]),
    text=STRANGE_TEXTS,
    model=STRANGE_TEXTS,
    completions=st.lists(COMPLETIONS, max_size=3).map(tuple),
    identity=st.dictionaries(STRANGE_TEXTS, JSON, max_size=3),
    pseudo_label=st.lists(st.builds(Entity, STRANGE_TEXTS, STRANGE_TEXTS), max_size=2).map(tuple),
    confidence=st.floats(0, 1),
    created=st.just("now"),
    seconds=st.floats(0, 1e9),
    extra=st.dictionaries(STRANGE_TEXTS.map(lambda name: "x-" + name), JSON, max_size=2),
)
SMALL = st.builds(
    lambda input_id, model, version, created: Record(
        input_id,
        "text",
        model,
        (Completion(f"{input_id}{model}{version}", None, 1, "stop"),),
        {"prompt": "p"},
        created=created,
        extra={"overwrites": version} if version else {},
    ),
    st.sampled_from("123"),
    st.sampled_from("AB"),
    st.integers(0, 2),
    st.sampled_from(["early", "late"]),
)


def fresh_folder():
    return tempfile.TemporaryDirectory(prefix="ccrl-test-")


def write_lines(path, records):
    path.write_bytes(b"".join(dump_json(record_to_json(item)) + b"\n" for item in records))
    return path


@given(RECORDS)
def test_any_record_round_trips_in_one_line(record):
    data = dump_json(record_to_json(record))
    assert b"\n" not in data
    assert record_from_json(load_json(data)) == record


@settings(max_examples=30)
@given(st.lists(JSON, max_size=4))
def test_what_is_written_is_read(values):
    with fresh_folder() as folder:
        path = Path(folder) / "a.jsonl"
        with JsonlWriter(path, fsync=False) as writer:
            offsets = [writer.append({"v": value}) for value in values]
        read = list(JsonlReader(path).objects())
    assert [value["v"] for _, value in read] == values
    assert [line.offset for line, _ in read] == offsets


def test_a_store_cut_at_any_byte_loses_its_torn_tail_alone(tmp_path):
    records = [
        Record(f"{n:016x}", "t\u2028\x85\ud800é"[: n + 2], "A", (), {}, created="now")
        for n in range(4)
    ]
    whole = write_lines(tmp_path / "whole.jsonl", records).read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == 10]
    path = tmp_path / "cut.jsonl"
    torn = tmp_path / "cut.jsonl.torn"
    for size in range(len(whole) + 1):
        torn.unlink(missing_ok=True)
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)
        tail = size - max([0, *ends[:kept]])
        ids = [item.input_id for item in records]
        with CompletionStore(path) as store:
            assert store.torn_bytes == tail
            assert store.owed(ids, "A", {}, resume=True) == ids[kept:]
            for item in records[kept:]:
                store.append(item)
        assert path.read_bytes() == whole
        assert torn.exists() == (tail > 0)
        if tail:
            assert torn.read_bytes() == whole[size - tail : size] + b"\n"


@settings(max_examples=60)
@given(st.lists(st.lists(SMALL, max_size=6), min_size=1, max_size=4), st.randoms())
def test_merge_is_order_free_and_idempotent(parts, random):
    with fresh_folder() as name:
        folder = Path(name)
        paths = [write_lines(folder / f"{n}.jsonl", part) for n, part in enumerate(parts)]
        merge(paths, folder / "out.jsonl")
        merged = (folder / "out.jsonl").read_bytes()
        shuffled = random.sample(paths, len(paths))
        merge(shuffled, folder / "again.jsonl")
        assert (folder / "again.jsonl").read_bytes() == merged
        for path in shuffled:  # one after the other, into what is there already
            merge([path], folder / "step.jsonl")
        assert (folder / "step.jsonl").read_bytes() == merged
        merge([*paths, folder / "out.jsonl", paths[0]], folder / "out.jsonl")
        assert (folder / "out.jsonl").read_bytes() == merged
        store = CompletionStore(folder / "out.jsonl")
        found = {
            (item.input_id, item.model): item.extra.get("overwrites", 0) for item in store.records()
        }
    best: dict[tuple[str, str], int] = {}
    for item in itertools.chain.from_iterable(parts):
        key = (item.input_id, item.model)
        best[key] = max(best.get(key, 0), item.extra.get("overwrites", 0))
    assert found == best


def line_by_line(path):
    """Index every line as a whole, each checked on its own."""
    index, reader = StoreIndex(path), JsonlReader(path)
    for line, value in reader.objects():
        try:
            index.add(line.offset, value)
        except ValueError as error:
            raise bad_line(path, line.number, str(error)) from error
    return index


def found_by(read, path):
    try:
        index = read(path)
    except IntegrityError as error:
        return error.message
    entries = {model: list(index.entries(model)) for model in index.models}
    return entries, index.num_lines, index.num_duplicates, index.num_replaced


#: Settings that differ, or are one in two spellings.
SPELLED = st.sampled_from([{"k": 1}, {"k": 1.0}, {"k": 1, "n": "é"}, {"n": "é", "k": 1}])
LIKE_EACH_OTHER = st.builds(
    lambda item, settings: {**record_to_json(item), "identity": settings}, SMALL, SPELLED
)
DAMAGE = st.tuples(
    st.integers(0, 10**6), st.sampled_from([*b'"{}[],:\\ntfux \x00\x1f\xff\xc3', -1])
)


@settings(max_examples=300)
@given(
    st.lists(LIKE_EACH_OTHER | RECORDS.map(record_to_json), max_size=8),
    st.lists(DAMAGE, max_size=2),
)
def test_a_scan_finds_what_whole_lines_say(values, damages):
    data = bytearray(b"".join(dump_json(value) + b"\n" for value in values))
    for place, byte in damages:
        if data and byte < 0:
            del data[place % len(data)]
        elif data:
            data[place % len(data)] = byte
    with fresh_folder() as folder:
        path = Path(folder) / "s.jsonl"
        path.write_bytes(data)
        expected = found_by(line_by_line, path)
        assume("infinity" not in expected)  # 1e999 is JSON; that it is no float, reading tells
        assert found_by(StoreIndex.scan, path) == expected
