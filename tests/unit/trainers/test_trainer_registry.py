"""Trainer backends: who is chosen, and that Unsloth comes before what it changes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ccrl_cli.errors import UsageError
from ccrl_cli.models.weights import LoadOptions, Weights
from ccrl_cli.trainers.registry import PolicySpec, choose_trainer, settled_options


@pytest.mark.parametrize(
    ("wanted", "processes", "chosen"),
    [("auto", 1, "trl"), ("auto", 2, "trl"), ("trl", 1, "trl"), ("unsloth", 1, "unsloth")],
)
def test_the_choice(wanted, processes, chosen):
    name, reason = choose_trainer(wanted, processes=processes)
    assert name == chosen
    assert reason


def test_wishes_that_cannot_be_met():
    with pytest.raises(UsageError, match="no trainer 'magic'"):
        choose_trainer("magic")
    with pytest.raises(UsageError, match="one GPU"):
        choose_trainer("unsloth", processes=2)


def test_options_that_an_adapter_has_settled_are_said(tmp_path):
    known = {"r": 16, "lora_alpha": 32.0, "lora_dropout": 0.0, "target_modules": ["v", "q"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(known), encoding="utf-8")
    spec = PolicySpec(
        Weights(Path("model"), tmp_path), LoadOptions(), 16, 32.0, 0.0, ("q", "v"), 0, 100, False
    )
    assert settled_options(spec) == []
    other = replace(spec, rank=64, dropout=0.1, modules=("q",))
    assert settled_options(other) == [
        "training.lora_rank = 64: the adapter that it goes on from has 16",
        "training.lora_dropout = 0.1: the adapter that it goes on from has 0.0",
        "training.lora_target_modules = ['q']: the adapter that it goes on from has ['q', 'v']",
    ]
    assert settled_options(replace(other, weights=Weights(Path("model")))) == []


SCRIPT = """
import sys
import torch
torch.cuda.is_available = lambda: True
import ccrl_cli.pipelines.training.train
from ccrl_cli.trainers import ranks, registry
registry.choose_trainer("auto")
backend = registry.trainer_backend("unsloth")
assert "trl" in sys.modules and "transformers" in sys.modules
print(type(backend).__name__, sys.modules["unsloth"].LOADED_BEFORE)
"""

FAKE = """
import sys
LOADED_BEFORE = [name for name in ("transformers", "trl", "peft") if name in sys.modules]
"""


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs trl")
def test_unsloth_is_imported_before_what_it_changes(tmp_path):
    """In a fresh interpreter, with a stand-in that notes what was loaded before it."""
    (tmp_path / "unsloth.py").write_text(FAKE, encoding="utf-8")
    search = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
    search += f"sys.path += {[p for p in sys.path if p]!r}\n"
    done = subprocess.run(
        [sys.executable, "-c", search + SCRIPT], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("UnslothBackend []")
