"""Commands in any order that a user may try: what is missing is named, with the command to run."""

from __future__ import annotations

import importlib.util
import json

import pytest

from ccrl_cli.cli.app import invoke

HAS_TRAINING = all(
    importlib.util.find_spec(name) is not None for name in ("torch", "transformers", "peft")
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error(capsys, *words: str) -> tuple[int, dict]:
    code = invoke([*words, "--json"])
    return code, json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--pacing", "root"),
        ("train", "--resume"),
        ("curriculum", "show"),
        ("curriculum", "calibrate"),
    ],
)
def test_without_completions_generate_is_named(capsys, words, folder):
    code, said = error(capsys, *words)
    assert code == 3
    assert said["kind"] == "precondition"
    assert "ccrl generate" in said["hint"]
    assert list(folder.iterdir()) == []  # nothing is left behind


def test_train_after_a_rehearsal_needs_nothing_but_its_packages(capsys, folder):
    """Mock completions serve a rehearsal of the order; bare `curriculum show` then works."""
    words = ["generate", "--backend", "mock", "--max-samples", "12", "-k", "3", "--quiet"]
    assert invoke(words) == 0
    assert invoke(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert invoke([*words, "--resume"]) == 0
    capsys.readouterr()
    assert invoke(["curriculum", "show", "--json", "-q"]) == 0
    view = json.loads(capsys.readouterr().out)["result"]
    assert view["num_inputs"] == 12
    assert view["reportable"] is False


@pytest.mark.skipif(not HAS_TRAINING, reason="needs torch, transformers and peft")
def test_the_adapter_of_a_training_that_was_not_run(capsys, folder, monkeypatch):
    from ccrl_cli.models import download

    # Which weights the start would have does not matter: the adapter is looked for first.
    monkeypatch.setattr(download, "ensure_model", lambda *a, **k: folder)
    monkeypatch.setattr(download, "model_revision", lambda *a, **k: "none")
    code, said = error(capsys, "evaluate", "--phase", "after")
    assert code == 3
    assert "ccrl train" in said["hint"]
    code, said = error(capsys, "evaluate", "--adapter", "nowhere")
    assert code == 3
    assert "nowhere" in said["message"]
    assert not (folder / "runs").exists()


@pytest.mark.skipif(not HAS_TRAINING, reason="needs torch, transformers and peft")
def test_a_warm_up_that_was_not_run(capsys, folder):
    code, said = error(capsys, "generate", "--set", "warmup.enabled=true", "--max-samples", "1")
    assert code == 3
    assert "ccrl warmup" in said["hint"]
