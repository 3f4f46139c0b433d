"""A training that is killed without warning and resumed ends as one that was left alone."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")):
    pytest.skip("needs torch, transformers, trl and peft", allow_module_level=True)

from ccrl_cli.cli.app import invoke
from tiny_chat import write_tiny_chat

pytestmark = pytest.mark.slow

STEPS = 40
SETTINGS = (
    "model.adapter=",
    "generation.constrained=false",
    "data.target.max_train_samples=16",
    f"training.max_steps={STEPS}",
    "training.prompts_per_step=4",
    "training.micro_batch_size=8",
    "training.learning_rate=1e-3",
    "training.max_prompt_tokens=1000",
    "training.max_completion_tokens=12",
    "training.probe_size=2",
    "training.probe_source_size=2",
    "training.probe_every_steps=3",
    "training.save_every_steps=5",
    "training.replay_share=0.2",
    "training.num_iterations=2",
    "training.confidence_weight=sampling",
    "training.keep=best",
    "training.guard.window_steps=99",
    "training.guard.max_kl=99",
    "curriculum.gate=true",
    "curriculum.balance=types",
    "reward.length_weight=1.0",
)


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    model = write_tiny_chat(tmp_path / "model")
    values = [f"model.name={model}", f"generation.store={tmp_path / 'store.jsonl'}", *SETTINGS]
    words = [word for value in values for word in ("--set", value)]
    assert invoke(["generate", "--backend", "mock", "-q", *words]) == 0
    assert invoke(["curriculum", "score", "-q", *words]) == 0
    return words


def start(words, run: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "ccrl_cli", "train", "-q", *words, *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--set", f"run.name={run}"], env=environment, stdout=subprocess.DEVNULL
    )


def lines(run: str, name: str) -> list[dict]:
    place = Path(f"runs/{run}/{name}.jsonl")
    if not place.exists():
        return []
    timed = ("seconds_", "tokens_per_second", "completions_per_second")
    found = []
    for line in place.read_text().splitlines():
        record = json.loads(line)
        found.append({k: v for k, v in record.items() if not k.startswith(timed)})
    return found


def digest(run: str) -> str:
    weights = Path(f"runs/{run}/adapter/adapter_model.safetensors").read_bytes()
    return hashlib.sha256(weights).hexdigest()


def test_kill_and_resume_give_the_same_training(words):
    assert start(words, "straight").wait(300) == 0
    cut = start(words, "cut")
    deadline = time.monotonic() + 200
    kills = 0
    for after in (8, 17):  # between checkpoints, twice
        while len(raw_lines("cut")) < after and cut.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if cut.poll() is None:
            cut.kill()
            kills += 1
        cut.wait()
        cut = start(words, "cut", "--resume")
    assert cut.wait(300) == 0
    assert kills >= 1
    for name in ("metrics", "stages"):
        assert lines("cut", name) == lines("straight", name), name
    assert len(lines("cut", "metrics")) == STEPS
    assert digest("cut") == digest("straight")


def raw_lines(run: str) -> list[str]:
    place = Path(f"runs/{run}/metrics.jsonl")
    return place.read_text().splitlines() if place.exists() else []
