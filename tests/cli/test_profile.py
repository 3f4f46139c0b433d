"""`ccrl profile`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def result(capsys, *words: str):
    assert invoke([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)["result"]


def test_list(capsys):
    assert invoke(["profile", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "description"]
    names = [item["name"] for item in result(capsys, "profile", "list")["profiles"]]
    assert [line.split()[0] for line in lines[2:]] == names
    assert "quickstart" in names


def test_show_names_the_origin_of_each_value(capsys):
    words = ["profile", "show", "--set", "training.epochs=3"]
    assert invoke(words) == 0
    rows = {line.split()[0]: line.split("  ") for line in capsys.readouterr().out.splitlines()}
    assert [cell.strip() for cell in rows["training.epochs"] if cell] == [
        "training.epochs",
        "3.0",
        "--set",
    ]
    shown = result(capsys, *words)
    assert shown["values"]["training"]["epochs"] == 3.0
    assert shown["origins"]["training.epochs"] == "--set"
    assert shown["origins"]["model.name"].startswith("profile quickstart.toml:")
    assert shown["origins"]["training.weight_decay"] == "default"
    assert len(shown["digest"]) == 16


def test_show_type_names_with_dots(capsys):
    assert invoke(["profile", "show", "--set", "data.type_names.a.b=see"]) == 0
    assert "data.type_names.a.b" in capsys.readouterr().out


def test_show_toml_is_a_profile_with_the_same_values(capsys):
    assert invoke(["profile", "show", "--toml", "--set", "run.seed=9"]) == 0
    Path("copy.toml").write_text(capsys.readouterr().out)
    words = ["profile", "show", "--set", "run.seed=9"]
    copied = result(capsys, "profile", "show", "-p", "copy.toml")
    assert copied["digest"] == result(capsys, *words)["digest"]


def test_validate(capsys):
    assert invoke(["profile", "validate", "-p", "small-gpu"]) == 0
    assert "is valid (digest " in capsys.readouterr().out
    Path("ccrl.toml").write_text('[run]\nname = "x"\nsead = 3\n')
    assert invoke(["profile", "validate"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: unknown key run.sead (profile ccrl.toml:3)",
        "hint: did you mean run.seed?",
    ]


def test_init_writes_what_every_command_then_reads(capsys):
    before = result(capsys, "profile", "show", "-p", "small-gpu")["digest"]
    assert invoke(["profile", "init", "small-gpu"]) == 0
    assert "wrote ccrl.toml" in capsys.readouterr().out
    shown = result(capsys, "profile", "show")
    assert (shown["digest"], shown["path"]) == (before, "ccrl.toml")
    assert invoke(["profile", "init"]) == 2
    assert "give --force" in capsys.readouterr().err
    assert invoke(["profile", "init", "--force"]) == 0
    assert invoke(["profile", "init", "-o", "sub/a.toml"]) == 0
    assert Path("sub/a.toml").read_bytes() == Path("ccrl.toml").read_bytes()
    assert invoke(["profile", "init", "-o", "ccrl.toml/a.toml"]) == 3
    assert invoke(["profile", "init", "nothing"]) == 2
