"""The completion store: owed work, identities, versions, counts."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import textwrap
import threading
import tracemalloc

import orjson
import pytest

from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.records import Completion, Entity, Record, content_id
from ccrl_cli.store.codec import (
    ABSENT,
    identity_differences,
    identity_digest,
    record_from_json,
    record_to_json,
)
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.index import StoreIndex

IDENTITY = {
    "model_revision": "abc",
    "adapter": None,
    "prompt": "p1",
    "labels": "l1",
    "sampling": {"k": 2, "temperature": 0.8, "top_p": 1.0, "max_tokens": 256, "seed": 0},
    "backend": "mock",
    "versions": {"torch": "2.11"},
}
OTHER = {**IDENTITY, "prompt": "p2", "sampling": {**IDENTITY["sampling"], "temperature": 1.0}}
TEXTS = [f"sentence {number}" for number in range(600)]
IDS = [content_id(text) for text in TEXTS]
TEXT_OF = dict(zip(IDS, TEXTS, strict=True))


def record(input_id, model="A", *, answer="[]", identity=IDENTITY, **fields):
    completions = (
        Completion(answer, -0.25, 3, "stop"),
        Completion("[", None, 256, "length"),
    )
    text = TEXT_OF.get(input_id, "text")
    return Record(input_id, text, model, completions, identity, **fields)


def generate(path, inputs, model, *, identity=IDENTITY, answer="[]", **flags):
    """What `ccrl generate` does for one model; returns the inputs it had to do."""
    with CompletionStore(path) as store:
        owed = store.owed(inputs, model, identity, **flags)
        for input_id in owed:
            store.append(
                record(input_id, model, identity=identity, answer=answer),
                overwrite=flags.get("overwrite", False),
            )
    return owed


def pairs(path):
    return [(item.input_id, item.model) for item in CompletionStore(path).records()]


# Records and JSON


def test_a_record_is_the_object_of_the_contract():
    made = Record(
        input_id="0123456789abcdef",
        text="Ada",
        model="org/name",
        completions=(Completion("x", -0.12, 31, "stop"),),
        identity=IDENTITY,
        pseudo_label=(Entity("Ada", "person"),),
        confidence=0.75,
        created="2025-01-02T03:04:05+00:00",
        seconds=1.5,
    )
    value = record_to_json(made)
    assert list(value) == [
        "schema",
        "input_id",
        "text",
        "model",
        "completions",
        "pseudo_label",
        "confidence",
        "identity",
        "created",
        "seconds",
    ]
    assert value["schema"] == 1
    assert value["completions"] == [
        {"text": "x", "mean_logprob": -0.12, "num_tokens": 31, "finish": "stop"}
    ]
    assert value["pseudo_label"] == [{"text": "Ada", "type": "person"}]
    assert record_from_json(orjson.loads(orjson.dumps(value))) == made


def test_unknown_fields_are_kept():
    value = {**record_to_json(record(IDS[0])), "note": {"a": [1]}}
    read = record_from_json(value)
    assert read.extra == {"note": {"a": [1]}}
    assert record_to_json(read) == value


def test_a_record_gets_the_time_it_was_stored():
    created = record_to_json(record(IDS[0]))["created"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", created)
    assert record_to_json(record(IDS[0], created="then"))["created"] == "then"


def test_extra_fields_may_not_hide_the_schema():
    with pytest.raises(ValueError, match="text"):
        record_to_json(record(IDS[0], extra={"text": "other"}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("schema", None),
        ("input_id", 5),
        ("model", None),
        ("text", None),
        ("completions", {}),
        ("completions", [[]]),
        ("completions", [{"text": "x", "num_tokens": 1, "finish": "other"}]),
        ("completions", [{"text": "x", "num_tokens": 1}]),
        ("completions", [{"text": "x", "num_tokens": 1.5, "finish": "stop"}]),
        ("completions", [{"text": 1, "num_tokens": 1, "finish": "stop"}]),
        ("completions", [{"text": "x", "mean_logprob": "1", "num_tokens": 1, "finish": "stop"}]),
        ("pseudo_label", ["x"]),
        ("pseudo_label", [{"text": "x"}]),
        ("confidence", "high"),
        ("identity", "x"),
        ("seconds", True),
        ("overwrites", -1),
        ("overwrites", "1"),
        ("overwrites", 2**40),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(field, value):
    with pytest.raises(ValueError, match=r"field|schema|completion|entity"):
        record_from_json({**record_to_json(record(IDS[0])), field: value})


# Identity


def test_differences_name_both_values():
    assert identity_differences(IDENTITY, OTHER) == {
        "prompt": ("p1", "p2"),
        "sampling.temperature": (0.8, 1),
    }
    without = {key: value for key, value in IDENTITY.items() if key != "adapter"}
    assert identity_differences(IDENTITY, without) == {"adapter": (None, ABSENT)}


@pytest.mark.parametrize(
    "same",
    [
        {**IDENTITY, "versions": {"torch": "2.12"}},
        {**IDENTITY, "backend": "other"},
        {**IDENTITY, "sampling": {**IDENTITY["sampling"], "top_p": 1}},
        dict(reversed(IDENTITY.items())),
    ],
)
def test_provenance_number_types_and_order_of_keys_make_no_other_identity(same):
    assert identity_differences(IDENTITY, same) == {}
    assert identity_digest(same) == identity_digest(IDENTITY)


def test_other_settings_have_another_digest():
    assert identity_digest(OTHER) != identity_digest(IDENTITY)
    assert re.fullmatch("[0-9a-f]{16}", identity_digest(OTHER))


# Owed work


def test_two_models_over_the_same_inputs_make_600_records(tmp_path):
    path = tmp_path / "store.jsonl"
    with CompletionStore(path) as store:
        for model in ("A", "B"):
            for input_id in store.owed(IDS[:300], model, IDENTITY, skip="pair"):
                store.append(record(input_id, model))
    assert pairs(path) == [(i, "A") for i in IDS[:300]] + [(i, "B") for i in IDS[:300]]
    assert path.read_bytes().count(b"\n") == 600


def test_a_second_model_in_a_second_command_resumes(tmp_path):
    path = tmp_path / "store.jsonl"
    assert generate(path, IDS[:300], "A") == IDS[:300]
    assert generate(path, IDS[:300], "B", resume=True) == IDS[:300]
    assert len(pairs(path)) == 600


def test_skip_input_gives_the_second_model_the_second_300(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS, "A", max_samples=300)
    generate(path, IDS, "B", max_samples=600, skip="input")
    assert pairs(path) == [(i, "A") for i in IDS[:300]] + [(i, "B") for i in IDS[300:]]
    assert len(CompletionStore(path)) == 600


def test_max_samples_counts_inputs_of_the_data_stored_ones_included(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS, "A", max_samples=5)
    assert generate(path, IDS, "A", max_samples=5, resume=True) == []
    assert generate(path, IDS, "A", max_samples=8, resume=True) == IDS[5:8]
    with pytest.raises(UsageError, match="max-samples"):
        generate(path, IDS, "A", max_samples=0, resume=True)


def test_a_repeated_input_is_owed_once_and_order_is_kept(tmp_path):
    inputs = [IDS[3], IDS[1], IDS[3], IDS[2]]
    store = CompletionStore(tmp_path / "none.jsonl")
    assert store.owed(inputs, "A", IDENTITY) == [IDS[3], IDS[1], IDS[2]]
    assert store.owed(iter(inputs), "A", IDENTITY, max_samples=2) == [IDS[3], IDS[1]]


def test_a_store_with_records_needs_a_word_what_to_do_with_them(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:2], "A")
    with pytest.raises(UsageError, match="already holds") as caught:
        generate(path, IDS[2:4], "B")
    assert caught.value.exit_code == 2
    assert "--resume" in caught.value.hint
    assert "--overwrite" in caught.value.hint


def test_a_torn_line_alone_is_an_empty_store(tmp_path):
    path = tmp_path / "store.jsonl"
    path.write_bytes(b'{"schema":1,"inp')
    with CompletionStore(path) as store:
        assert store.torn_bytes == 16
        assert store.owed(IDS[:2], "A", IDENTITY) == IDS[:2]


def test_another_identity_is_refused_with_both_values(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:2], "A")
    before = path.read_bytes()
    with pytest.raises(IntegrityError) as caught:
        generate(path, IDS[:3], "A", identity=OTHER, resume=True)
    assert "prompt is 'p1' in the store and 'p2' now" in caught.value.message
    assert "sampling.temperature is 0.8 in the store and 1 now" in caught.value.message
    assert IDS[0] in caught.value.message
    assert caught.value.exit_code == 5
    assert path.read_bytes() == before
    with pytest.raises(IntegrityError):
        generate(path, IDS[:3], "A", identity=OTHER, skip="input")


def test_another_identity_is_no_matter_for_pairs_that_are_not_stored(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:2], "A")
    assert generate(path, IDS[:2], "B", identity=OTHER, resume=True) == IDS[:2]
    assert generate(path, IDS[2:4], "A", identity=OTHER, resume=True) == IDS[2:4]


def test_many_differences_are_shortened(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:1], "A")
    with pytest.raises(IntegrityError, match=r"; 3 more$"):  # 9 keys compared, 6 shown
        generate(path, IDS[:1], "A", identity={"versions": {}}, resume=True)


@pytest.mark.parametrize("skip", ["input"])
def test_contradicting_flags(tmp_path, skip):
    with pytest.raises(UsageError, match="contradict"):
        CompletionStore(tmp_path / "a").owed(IDS, "A", IDENTITY, overwrite=True, skip=skip)


# Versions and duplicates


def test_after_overwrite_the_later_record_counts(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:3], "A", answer="old")
    assert generate(path, IDS[:2], "A", answer="new", identity=OTHER, overwrite=True) == IDS[:2]
    generate(path, IDS[:1], "A", answer="newest", overwrite=True)
    store = CompletionStore(path)
    found = {item.input_id: item for item in store.records()}
    assert [found[i].completions[0].text for i in IDS[:3]] == ["newest", "new", "old"]
    assert [found[i].extra for i in IDS[:3]] == [{"overwrites": 2}, {"overwrites": 1}, {}]
    assert path.read_bytes().count(b"\n") == 6
    assert (len(store), store.index.num_replaced) == (3, 3)
    assert generate(path, IDS[1:2], "A", identity=OTHER, resume=True) == []


def test_the_version_decides_and_not_the_order_of_lines(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:1], "A", answer="old")
    generate(path, IDS[:1], "A", answer="new", overwrite=True)
    path.write_bytes(b"".join(reversed(path.read_bytes().splitlines(keepends=True))))
    assert [item.completions[0].text for item in CompletionStore(path).records()] == ["new"]


def test_an_interrupted_overwrite_goes_on_with_resume(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:4], "A")
    generate(path, IDS[:2], "A", identity=OTHER, overwrite=True)
    owed = generate(path, IDS[:4], "A", identity=OTHER, overwrite=True, resume=True)
    assert owed == IDS[2:4]


def test_equal_duplicates_are_one_whatever_their_time(tmp_path):
    path = tmp_path / "store.jsonl"
    lines = [
        orjson.dumps(record_to_json(record(IDS[0], created=created, seconds=seconds)))
        for created, seconds in (("a", 1.0), ("a", 1.0), ("b", 2.0))
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    store = CompletionStore(path)
    assert len(store) == 1
    assert store.index.num_duplicates == 2
    assert [item.created for item in store.records()] == ["a"]
    (tmp_path / "store.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(CompletionStore(tmp_path / "store.jsonl.gz")) == 1


@pytest.mark.parametrize("name", ["store.jsonl", "store.jsonl.gz"])
def test_contradicting_duplicates_are_an_integrity_error(tmp_path, name):
    lines = [
        orjson.dumps(record_to_json(record(IDS[0], answer=answer))) + b"\n" for answer in ("a", "b")
    ]
    data = b"".join(lines)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(IntegrityError, match=r"line 2: .*different content .*line 1") as caught:
        len(CompletionStore(tmp_path / name))
    assert "--repair" in caught.value.hint


def test_a_second_append_of_a_pair_must_be_equal_or_overwrite(tmp_path):
    path = tmp_path / "store.jsonl"
    with CompletionStore(path) as store:
        store.append(record(IDS[0], seconds=1.0))
        store.append(record(IDS[0], seconds=2.0))
        with pytest.raises(IntegrityError, match="already holds other completions"):
            store.append(record(IDS[0], answer="other"))
        store.append(record(IDS[0], answer="other"), overwrite=True)
        store.append(record(IDS[0], answer="other"))
    assert path.read_bytes().count(b"\n") == 2
    assert [item.completions[0].text for item in CompletionStore(path).records()] == ["other"]


# Reading and writing


def test_strange_text_survives(tmp_path):
    text = "a\u2028b\x85c\rd\x00e\ud800f\n\U0001f600"
    with CompletionStore(tmp_path / "s.jsonl") as store:
        store.append(Record(content_id(text), text, text, record(IDS[0]).completions, IDENTITY))
    (found,) = CompletionStore(tmp_path / "s.jsonl").records()
    assert (found.text, found.model, content_id(found.text)) == (text, text, found.input_id)


def test_records_of_some_models(tmp_path):
    path = tmp_path / "s.jsonl"
    for model in "ABC":
        generate(path, IDS[:2], model, resume=True)
    store = CompletionStore(path)
    assert store.models == ("A", "B", "C")
    assert [item.model for item in store.records({"A", "C"})] == ["A", "A", "C", "C"]
    assert list(store.records(())) == []


def test_a_missing_store_is_empty_to_writers_and_missing_to_readers(tmp_path):
    store = CompletionStore(tmp_path / "s.jsonl")
    assert len(store) == 0
    assert store.owed(IDS[:1], "A", IDENTITY) == IDS[:1]
    for use in (store.info, store.verify, lambda: list(store.records())):
        with pytest.raises(PreconditionError):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_is_no_record_is_named(tmp_path):
    path = tmp_path / "s.jsonl"
    generate(path, IDS[:1], "A")
    with path.open("ab") as stream:
        stream.write(b'{"schema": 1}\n')
    with pytest.raises(IntegrityError, match=r"s\.jsonl, line 2: .*input_id"):
        generate(path, IDS[:2], "A", resume=True)
    assert not (tmp_path / "s.jsonl.lock").exists()


def test_a_damaged_completion_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "s.jsonl"
    value = {**record_to_json(record(IDS[0])), "completions": [{}]}
    path.write_bytes(orjson.dumps(value) + b"\n")
    with pytest.raises(IntegrityError, match="line 1"):
        list(CompletionStore(path).records())


def test_one_writer_and_no_writing_without_opening(tmp_path):
    path = tmp_path / "s.jsonl"
    with CompletionStore(path):
        with pytest.raises(PreconditionError, match="being written by process"):
            CompletionStore(path).__enter__()
        assert len(CompletionStore(path)) == 0
    with pytest.raises(RuntimeError, match="not open"):
        CompletionStore(path).append(record(IDS[0]))


def test_threads_may_append_together(tmp_path):
    path = tmp_path / "s.jsonl"
    with CompletionStore(path) as store:
        threads = [
            threading.Thread(target=lambda part=part: [store.append(record(i)) for i in part])
            for part in (IDS[0:40], IDS[20:60], IDS[40:80])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(i for i, _ in pairs(path)) == sorted(IDS[:80])
    assert path.read_bytes().count(b"\n") == 80


def test_a_killed_generation_resumes_where_it_was(tmp_path):
    path = tmp_path / "s.jsonl"
    code = """
        import sys
        from pathlib import Path
        from ccrl_cli.records import Completion, Record
        from ccrl_cli.store.completions import CompletionStore
        identity = {"sampling": {"k": 1}}
        with CompletionStore(Path(sys.argv[1])) as store:
            for input_id in store.owed(map(str, range(10**5)), "A", identity):
                answer = Completion("x" * 2000, None, 1, "stop")
                store.append(Record(input_id, input_id, "A", (answer,), identity))
                print(input_id, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE
    )
    for _ in range(20):
        child.stdout.readline()
    child.kill()
    reported = 20 + len(child.communicate()[0].splitlines())
    with CompletionStore(path) as store:
        owed = store.owed(map(str, range(1000)), "A", {"sampling": {"k": 1}}, resume=True)
        assert 1000 - len(owed) in (reported, reported + 1)
        assert owed == [str(number) for number in range(1000 - len(owed), 1000)]


def test_the_scan_keeps_keys_and_no_records(tmp_path):
    path = tmp_path / "s.jsonl"
    count = 20_000
    template = record_to_json(record(IDS[0], answer="x" * 1600, created="now"))
    with path.open("wb") as stream:
        for number in range(count):
            stream.write(orjson.dumps({**template, "input_id": f"{number:016x}"}) + b"\n")
    assert path.stat().st_size > 2000 * count
    StoreIndex.scan(path)  # imports and caches first
    tracemalloc.start()
    try:
        index = StoreIndex.scan(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(index) == count
    # 600 MB for a million is 600 bytes a record; a reading buffer of 1 MiB comes on top
    assert peak < 600 * count + 3 * 2**20


# Shards


def test_shards_share_the_inputs_out(tmp_path):
    path = tmp_path / "store.jsonl"
    owed = [
        CompletionStore(path, shard=(number, 3)).owed(IDS[:90], "A", IDENTITY)
        for number in (1, 2, 3)
    ]
    assert sorted(i for part in owed for i in part) == sorted(IDS[:90])
    assert all(len(part) > 10 for part in owed)
    first = CompletionStore(path, shard=(1, 3)).owed(IDS, "A", IDENTITY, max_samples=90)
    assert first == owed[0]


def test_a_shard_leaves_out_what_the_whole_store_holds(tmp_path):
    path = tmp_path / "store.jsonl"
    generate(path, IDS[:20], "A")
    with pytest.raises(UsageError, match="already holds"):
        CompletionStore(path, shard=(1, 2)).owed(IDS[:40], "A", IDENTITY)
    with CompletionStore(path, shard=(1, 2)) as store:
        assert store.path == tmp_path / "store.1-of-2.jsonl"
        owed = store.owed(IDS[:40], "A", IDENTITY, resume=True)
        assert 0 < len(owed) < 20
        assert set(owed) <= set(IDS[20:40])
        with pytest.raises(IntegrityError):
            store.owed(IDS[:40], "A", OTHER, resume=True)
        replaced = store.owed(IDS[:20], "A", OTHER, overwrite=True)
        store.append(record(replaced[0], identity=OTHER), overwrite=True)
        store.append(record(replaced[1]))
    (stored,) = CompletionStore(store.path).records()
    assert stored.extra == {"overwrites": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", 2),
        ("input_id", 5),
        ("model", None),
        ("completions", {}),
        ("completions", None),
        ("identity", "x"),
        ("identity", None),
        ("overwrites", -1),
        ("overwrites", "1"),
    ],
)
def test_a_bad_line_after_a_good_one_like_it_is_found(tmp_path, field, value):
    path = tmp_path / "s.jsonl"
    first = record_to_json(record(IDS[0]))
    second = {**first, "input_id": IDS[1], field: value}
    path.write_bytes(orjson.dumps(first) + b"\n" + orjson.dumps(second) + b"\n")
    with pytest.raises(IntegrityError, match=r"s\.jsonl, line 2: "):
        len(CompletionStore(path))


def test_records_of_alternating_models_settings_and_sizes(tmp_path):
    path = tmp_path / "s.jsonl"
    with CompletionStore(path) as store:
        for number, input_id in enumerate(IDS[:40]):
            settings = OTHER if number % 3 else IDENTITY
            made = record(input_id, "AB"[number % 2], identity=settings)
            store.append(made)
    store = CompletionStore(path)
    for number, input_id in enumerate(IDS[:40]):
        entry = store.index.find(input_id, "AB"[number % 2])
        assert entry.identity == (OTHER if number % 3 else IDENTITY)
        assert (entry.version, entry.num_completions) == (0, 2)
        assert store.index.find(input_id, "BA"[number % 2]) is None


def test_inputs_considered_are_those_of_the_shard(tmp_path):
    whole = CompletionStore(tmp_path / "s.jsonl")
    assert whole.count_considered(IDS + IDS) == 600
    assert whole.count_considered(IDS, 7) == 7
    shards = [CompletionStore(tmp_path / "s.jsonl", shard=(n, 3)) for n in (1, 2, 3)]
    assert sum(shard.count_considered(IDS) for shard in shards) == 600
