"""Two processes train as one does: same draws, same answers, the same curve within rounding."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")):
    pytest.skip("needs torch, transformers, trl and peft", allow_module_level=True)

from ccrl_cli.cli.app import invoke
from tiny_chat import write_tiny_chat

pytestmark = pytest.mark.slow

SETTINGS = (
    "model.adapter=",
    "generation.constrained=false",
    "data.target.max_train_samples=16",
    "training.max_steps=6",
    "training.prompts_per_step=4",
    "training.micro_batch_size=8",
    "training.num_generations=4",
    "training.learning_rate=1e-3",
    "training.max_prompt_tokens=1000",
    "training.max_completion_tokens=12",
    "training.probe_size=2",
    "training.probe_source_size=2",
    "training.probe_every_steps=2",
    "training.save_every_steps=3",
    "training.replay_share=0.2",
    "training.beta=0.05",
    "training.guard.window_steps=99",
    "curriculum.gate=true",
    "reward.length_weight=1.0",
)
ONE = ("training.micro_batch_size=16", "run.name=one")
TWO = ("training.micro_batch_size=8", "run.name=two")


@pytest.fixture
def words(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    model = write_tiny_chat(tmp_path / "model")
    store = tmp_path / "completions.jsonl"
    values = [f"model.name={model}", f"generation.store={store}", *SETTINGS]
    words = [word for value in values for word in ("--set", value)]
    assert invoke(["generate", "--backend", "mock", "-q", *words]) == 0
    assert invoke(["curriculum", "score", "-q", *words]) == 0
    return words


def train(words, extra, *, processes: int, timeout: float = 300):
    sets = [word for value in extra for word in ("--set", value)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        sys.executable,
        *(launcher if processes > 1 else []),
        "-m",
        "ccrl_cli",
        "train",
        "--json",
        *words,
        *sets,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        env=environment,
        check=False,
    )


def lines(run: str, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in Path(f"runs/{run}/{name}.jsonl").open()]


def test_two_processes_train_as_one(words, capfd):
    one = train(words, ONE, processes=1)
    assert one.returncode == 0, one.stderr[-2000:]
    two = train(words, TWO, processes=2)
    assert two.returncode == 0, two.stderr[-4000:]
    document = json.loads(two.stdout)  # one document: the other process is silent
    assert document["result"]["processes"] == 2
    ours, theirs = lines("one"), lines("two")
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == [1, 2, 3, 4, 5, 6]
    for a, b in zip(ours, theirs, strict=True):
        assert (a["inputs"], a["replayed"]) == (b["inputs"], b["replayed"])
        assert a["open_share"] == b["open_share"]
    exact = ("reward", "entities", "zero_spread_share", "answer_tokens")
    assert all(ours[0][name] == pytest.approx(theirs[0][name], abs=1e-9) for name in exact)
    for name, tolerance in (("loss", 1e-3), ("gradient_norm", 1e-2), ("kl_rollouts", 1e-3)):
        curve = [(a[name], b[name]) for a, b in zip(ours, theirs, strict=True)]
        assert all(a == pytest.approx(b, abs=tolerance) for a, b in curve), (name, curve)
    rewards = [(a["reward"], b["reward"]) for a, b in zip(ours, theirs, strict=True)]
    assert all(a == pytest.approx(b, abs=0.05) for a, b in rewards), rewards


def test_a_step_that_cannot_be_shared_is_refused(words):
    odd = (*TWO, "training.prompts_per_step=3", "training.micro_batch_size=4")
    result = train(words, odd, processes=2)
    assert result.returncode != 0
    assert "2 processes cannot share training.prompts_per_step = 3 evenly" in result.stderr
