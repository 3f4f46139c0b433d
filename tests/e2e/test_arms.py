"""Arms end to end with a tiny model that is trained in seconds: killed, resumed, side by side."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl")):
    pytest.skip("needs torch, transformers and trl", allow_module_level=True)

from answering_model import write_answering_model  # noqa: E402 (a marker comes first)

STEPS = 12
ARMS = "zero-shot,majority-vote,naive-sft,naive-rl,threshold-only,curriculum,oracle"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the model, data in which its one answer is right half the time, a profile."""
    folder = tmp_path_factory.mktemp("work")
    write_answering_model(folder / "model")
    rng = random.Random(0)
    for name in ("source", "target"):
        (folder / name).mkdir()
        for split, count in (("train", 12), ("test", 16)):
            rows = [sentence(rng, number) for number in range(count)]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "ccrl.toml").write_text(
        f"""
[model]
name = "{(folder / "model").as_posix()}"
dtype = "float32"
[data.source]
path = "source"
labels = ["agency", "space_probe"]
[data.target]
path = "target"
labels = ["agency", "space_probe"]
[data.type_names]
space_probe = "space probe"
[prompt]
template = "compact"
[generation]
num_completions = 4
max_tokens = 96
batch_size = 4
temperature = 0.6
[confidence]
metric = "entity_vote"
label = "entity_vote"
[curriculum]
shares = [0.5, 1.0]
[training]
max_steps = {STEPS}
prompts_per_step = 2
num_generations = 4
micro_batch_size = 4
learning_rate = 3e-3
max_prompt_tokens = 700
max_completion_tokens = 96
gradient_checkpointing = false
save_every_steps = 2
probe_size = 2
probe_every_steps = 4
[training.guard]
enabled = false  # every arm takes its whole budget here, also at this learning rate
[evaluation]
batch_size = 16
max_tokens = 96
[baselines]
seeds = 1
threshold = 0.01
""",
        encoding="utf-8",
    )
    return folder


def sentence(rng, number):
    words = [rng.choice(["sent", "to", "Jupiter", "launched", "here"]) for _ in range(4)]
    gold = []
    if rng.random() < 0.7:
        words.insert(0, "NASA")
        gold.append({"text": "NASA", "type": "agency"})
    if rng.random() < 0.7:
        words.append("Juno")
        kind = "space_probe" if rng.random() < 0.7 else "agency"
        gold.append({"text": "Juno", "type": kind})
    return {"text": " ".join([*words, str(number)]), "entities": gold}


def words_for(name, *more):
    return [sys.executable, "-m", "ccrl_cli", "baselines", *more, "--set", f"run.name={name}"]


def call(place, name, *more, code=0):
    done = subprocess.run(
        [*words_for(name, *more), "--json"], cwd=place, capture_output=True, encoding="utf-8",
        env=environment(), timeout=600,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-3000:]
    return json.loads(done.stdout)


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def kill_when(place, name, marker, *more):
    """Start a command and kill it outright as soon as a file is there."""
    process = subprocess.Popen(
        words_for(name, *more), cwd=place, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    end = time.monotonic() + 300
    try:
        while not marker.exists():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < end, f"{marker} never came"
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def arms_folder(place, name):
    return place / "runs" / name / "arms"


def weights(place, name, pair):
    file = arms_folder(place, name) / pair / "adapter" / "adapter_model.safetensors"
    return hashlib.sha256(file.read_bytes()).hexdigest()


def steps(place, name, pair):
    file = arms_folder(place, name) / pair / "metrics.jsonl"
    return [json.loads(line)["step"] for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def whole(place):
    """The document of an uninterrupted run-all."""
    return call(place, "whole", "run-all", "--arms", ARMS)


def rows(document):
    """Return what a comparison says of each arm, without times."""
    table = document["result"]["comparison"]["rows"]
    return {row["arm"]: {k: v for k, v in row.items() if k != "seconds"} for row in table}


def test_every_arm_runs_at_one_budget(place, whole):
    found = rows(whole)
    assert list(found) == ARMS.split(",")
    assert whole["counts"] == {"done": 7, "skipped": 0, "failed": 0}
    trained = [row for row in found.values() if row["planned_updates"]]
    assert {row["updates"] for row in trained} == {STEPS}
    # 12 steps of 2 prompts and 4 rollouts
    assert {row["rollouts"] for row in trained} == {0, STEPS * 8}
    assert found["oracle"]["label_f1"]["mean"] == 1
    assert 0 < found["naive-rl"]["label_f1"]["mean"] < 1
    assert 0 < found["zero-shot"]["target_f1"]["mean"] < 1
    for pair in ("naive-sft-seed0", "curriculum-seed0", "oracle-seed0"):
        assert steps(place, "whole", pair) == list(range(1, STEPS + 1))
        assert weights(place, "whole", pair) != weights(place, "whole", "naive-rl-seed0")
    assert found["naive-sft"]["kl"]["mean"] > 0
    page = Path(place, whole["result"]["page"]).read_text(encoding="utf-8")
    assert all(arm in page for arm in ARMS.split(","))


def test_all_arms_begin_with_one_score(place, whole):
    folder = arms_folder(place, "whole")
    for role in ("target", "source"):
        files = list(folder.glob(f"*/predictions-{role}-before.jsonl"))
        assert len(files) == 7
        assert len({file.read_bytes() for file in files}) == 1
        # Answered once: the others are copies.
        seconds = [
            json.loads(state.read_text(encoding="utf-8"))[f"evaluate-{role}-before"]["seconds"]
            for state in folder.glob("*/state.json")
        ]
        assert sum(value > 0 for value in seconds) == 1


def test_manifests_name_their_arm_and_share_the_completions(place, whole):
    stores = set()
    for file in arms_folder(place, "whole").glob("*/manifest.json"):
        manifest = json.loads(file.read_text(encoding="utf-8"))
        assert file.parent.name == f"{manifest['arm']}-seed{manifest['seed']}"
        stores.add(manifest["profile"]["generation"]["store"])
    assert len(stores) == 1


def test_a_second_call_does_nothing(place, whole):
    before = {p: p.stat().st_mtime_ns for p in arms_folder(place, "whole").rglob("*.safetensors")}
    again = call(place, "whole", "run-all", "--arms", ARMS)
    assert again["status"] == "nothing"
    assert again["counts"]["skipped"] == 7
    assert rows(again) == rows(whole)
    assert before == {
        p: p.stat().st_mtime_ns for p in arms_folder(place, "whole").rglob("*.safetensors")
    }
    single = call(place, "whole", "run", "curriculum")
    assert single["status"] == "nothing"


def test_killed_twice_it_ends_where_an_undisturbed_run_does(place, whole):
    folder = arms_folder(place, "killed")
    for pair in ("naive-sft-seed0", "curriculum-seed0"):
        marker = folder / pair / "checkpoints" / "checkpoint-4" / "trainer_state.json"
        kill_when(place, "killed", marker, "run-all", "--arms", ARMS)
        assert not (folder / pair / "adapter").exists()
    done = call(place, "killed", "run-all", "--arms", ARMS)
    assert rows(done) == rows(whole)
    assert done["counts"]["failed"] == 0
    assert done["counts"]["skipped"] >= 3
    for pair in ("naive-sft-seed0", "naive-rl-seed0", "curriculum-seed0", "oracle-seed0"):
        assert steps(place, "killed", pair) == list(range(1, STEPS + 1))
        assert weights(place, "killed", pair) == weights(place, "whole", pair)


def test_side_by_side_they_come_to_the_same(place, whole):
    arms = "naive-sft,curriculum,naive-rl"
    found = call(place, "beside", "run-all", "--arms", arms, "--parallel", "2")
    assert found["counts"] == {"done": 4, "skipped": 0, "failed": 0}
    for pair in ("naive-sft-seed0", "curriculum-seed0", "naive-rl-seed0"):
        assert weights(place, "beside", pair) == weights(place, "whole", pair)


def test_workers_end_when_the_queue_is_killed(place):
    folder = arms_folder(place, "orphans")
    marker = folder / "curriculum-seed0" / "checkpoints"
    kill_when(place, "orphans", marker, "run-all", "--arms", "naive-rl,curriculum",
              "--parallel", "2")  # fmt: skip
    end = time.monotonic() + 60
    while any(running(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    assert not any(running(folder))
    done = call(place, "orphans", "run-all", "--arms", "naive-rl,curriculum")
    assert done["counts"]["failed"] == 0


def running(folder):
    """Yield processes that work on arms of a folder."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().decode(errors="replace")
            where = (entry.parent / "cwd").resolve()
        except OSError:
            continue
        if "\0worker\0" in text and where == folder.parents[2] and folder.parent.name in text:
            yield entry


def test_a_seed_changes_the_training_and_not_the_labels(place, whole):
    call(place, "whole", "run", "naive-rl", "--seed", "1")
    assert weights(place, "whole", "naive-rl-seed1") != weights(place, "whole", "naive-rl-seed0")
    found = call(place, "whole", "compare", "--seeds", "2")
    row = next(r for r in found["result"]["rows"] if r["arm"] == "naive-rl")
    assert (row["seeds"], row["target_f1"]["num_seeds"]) == ([0, 1], 2)


def test_other_settings_are_refused_and_overwritten_on_request(place, whole):
    call(place, "other", "run", "naive-rl", "--max-steps", "2")
    refused = call(place, "other", "run", "naive-rl", "--max-steps", "3", code=2)
    assert "other settings" in refused["error"]["message"]
    assert "--overwrite" in refused["error"]["hint"]
    done = call(place, "other", "run", "naive-rl", "--max-steps", "3", "--overwrite")
    assert done["status"] == "done"
    assert steps(place, "other", "naive-rl-seed0") == [1, 2, 3]


def test_an_arm_that_fails_does_not_stop_the_others(place):
    # So hot that no answer can be read: every confidence is 0.
    found = call(place, "failing", "run-all", "--arms", "threshold-only,naive-rl",
                 "--set", "baselines.threshold=1.0", "--set", "generation.temperature=5.0",
                 "--max-steps", "2", code=4)  # fmt: skip
    assert found["status"] == "partial"
    assert found["counts"] == {"done": 2, "skipped": 0, "failed": 1}
    failed = next(r for r in found["result"]["runs"] if r["status"] == "failed")
    assert "no input is left to train on" in failed["message"]
    assert "baselines.threshold" in failed["message"]
