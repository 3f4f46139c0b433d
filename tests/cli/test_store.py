"""`ccrl store`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.records import Completion, Entity, Record, content_id
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.shards import shard_of

IDENTITY = {"prompt": "p", "sampling": {"k": 2}, "backend": "mock", "versions": {}}
STORE = Path("runs/quickstart/completions.jsonl")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(texts, model="A", *, path=STORE, shard=None):
    with CompletionStore(path, shard=shard) as store:
        for text in texts:
            input_id = content_id(text)
            if shard is not None and shard_of(input_id, shard[1]) != shard[0]:
                continue
            answer = Completion("[]", -0.5, 2, "stop")
            label = (Entity(text, "person"),)
            store.append(Record(input_id, text, model, (answer,) * 2, IDENTITY, label, 0.5))


def run(capsys, *words, code=0):
    assert invoke(["store", *words, "--json"]) == code
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    return json.loads(out), err


def test_info_of_the_profiles_store(capsys):
    write("abc")
    write("ab", "B")
    document, err = run(capsys, "info")
    assert err == ""
    assert document["command"] == "store info"
    assert document["counts"] == {"records": 5, "duplicates": 0, "replaced": 0, "torn_bytes": 0}
    models = document["result"]["models"]
    assert [(m["model"], m["records"], m["num_completions"]) for m in models] == [
        ("A", 3, {"2": 3}),
        ("B", 2, {"2": 2}),
    ]
    assert models[0]["identities"][0]["identity"] == IDENTITY
    assert invoke(["store", "info", str(STORE)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{STORE}: 5 records of 3 inputs")
    assert lines[3].split()[:4] == ["A", "3", "6", "2"]


@pytest.mark.parametrize("command", [["info"], ["verify"], ["export", "--model", "A"]])
def test_without_a_store_exit_is_3(capsys, command):
    document, _ = run(capsys, *command, code=3)
    assert document["error"]["kind"] == "precondition"
    assert not Path("runs").exists()


def test_verify_names_bad_lines_and_repair_moves_them(capsys):
    write("ab")
    with STORE.open("ab") as stream:
        stream.write(b"nonsense\n{")
    assert run(capsys, "info", code=5)[0]["error"]["kind"] == "integrity"
    document, err = run(capsys, "verify", code=5)
    assert document["status"] == "error"
    assert "1 of 3 lines are bad, the first is line 3" in document["error"]["message"]
    assert "ccrl store verify --repair" in document["error"]["hint"]
    assert "line 3" in err
    document, _ = run(capsys, "verify", "--repair")
    assert document["counts"] == {"records": 2, "moved": 1, "duplicates": 0, "torn_bytes": 1}
    assert document["result"]["side_file"] == f"{STORE}.bad"
    assert any("cut off a torn last line" in warning for warning in document["warnings"])
    assert Path(f"{STORE}.bad").read_bytes() == b"nonsense\n"
    assert run(capsys, "verify")[0]["result"]["bad"] == []


def test_merge_takes_the_shards_of_the_store(capsys):
    texts = [f"text {number}" for number in range(20)]
    assert run(capsys, "merge", code=3)[0]["error"]["message"].startswith("no shards of")
    for number in (1, 2, 3):
        write(texts, shard=(number, 3))
    document, _ = run(capsys, "merge")
    assert document["counts"] == {"records": 20, "duplicates": 0, "torn_bytes": 0}
    merged = STORE.read_bytes()
    assert run(capsys, "merge")[0]["counts"]["duplicates"] == 20
    assert STORE.read_bytes() == merged
    shards = sorted(map(str, STORE.parent.glob("*-of-3.jsonl")), reverse=True)
    run(capsys, "merge", *shards, "-o", "other.jsonl")
    assert Path("other.jsonl").read_bytes() == merged


def test_export_with_labels(capsys):
    write("ab")
    write("a", "B")
    document, _ = run(capsys, "export", "--model", "A")
    assert document["result"]["path"] == str(STORE.with_name("completions.export.jsonl"))
    rows = list(map(json.loads, Path(document["result"]["path"]).read_bytes().split(b"\n")[:-1]))
    assert [row["label_at_generation"] for row in rows] == [
        [{"text": "a", "type": "person"}],
        [{"text": "b", "type": "person"}],
    ]
    assert run(capsys, "export", "--format", "parquet")[0]["counts"]["records"] == 3
    assert Path("runs/quickstart/completions.export.parquet").exists()
    run(capsys, "export", "-o", "out.csv", code=2)
    run(capsys, "export", "--format", "csv", code=2)
    document, _ = run(capsys, "export", "--model", "C", code=3)
    assert "store info" in document["error"]["hint"]
