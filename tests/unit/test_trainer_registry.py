"""Trainer backends: who is chosen, and that Unsloth comes before what it changes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from ccrl_cli.errors import UsageError
from ccrl_cli.trainers.registry import choose_trainer


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


SCRIPT = """
import sys
import torch
torch.cuda.is_available = lambda: True
import ccrl_cli.pipelines.train
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
        [sys.executable, "-c", search + SCRIPT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("UnslothBackend []")
