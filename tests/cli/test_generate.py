"""`ccrl generate`: its flags."""

from __future__ import annotations

import json
import sys

import pytest

from ccrl_cli.cli import app
from ccrl_cli.cli.app import invoke


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["generate", "--ray"], ["generate", "--ray", "auto"]),
        (["generate", "--ray", "--resume"], ["generate", "--ray", "auto", "--resume"]),
        (["generate", "--ray", "host:1", "-q"], ["generate", "--ray", "host:1", "-q"]),
        (["generate", "--ray=host:1"], ["generate", "--ray=host:1"]),
        (["predict", "--", "--ray"], ["predict", "--", "--ray"]),
    ],
)
def test_an_option_without_its_value_gets_one(words, seen):
    assert app._with_values(words) == seen


def test_without_ray_the_package_to_install_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    words = ["generate", "--backend", "mock", "--max-samples", "2", "--ray", "--json"]
    assert invoke(words) == 3
    assert json.loads(capsys.readouterr().out)["error"]["hint"].startswith(
        'pip install "ccrl[ray]"'
    )


def test_mock_answers_are_not_reportable(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["generate", "--backend", "mock", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["result"]["reportable"] is False
    assert document["counts"]["too_long"] == 0


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "x/y"])
def test_a_shard_that_is_none_is_a_usage_error(tmp_path, monkeypatch, capsys, shard):
    monkeypatch.chdir(tmp_path)
    assert invoke(["generate", "--backend", "mock", "--shard", shard, "--json"]) == 2
    assert "I/N" in json.loads(capsys.readouterr().out)["error"]["hint"]
