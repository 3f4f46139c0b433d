"""`ccrl train` on a tiny model and mock labels: guard, resume, trackers, backends."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")):
    pytest.skip("needs torch, transformers, trl and peft", allow_module_level=True)

from ccrl_cli.cli.app import invoke
from ccrl_cli.pipelines.training.journal import TrainingJournal
from tiny_chat import write_tiny_chat


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("model"))


@pytest.fixture
def words(model, tmp_path, monkeypatch, capsys) -> list[str]:
    """The settings of a small training, with mock completions in place."""
    monkeypatch.chdir(tmp_path)
    values = [
        f"model.name={model}",
        "model.adapter=",
        "generation.constrained=false",
        "data.target.max_train_samples=12",
        "training.max_steps=4",
        "training.prompts_per_step=2",
        "training.micro_batch_size=8",
        "training.max_prompt_tokens=1000",
        "training.max_completion_tokens=8",
        "training.probe_size=2",
        "training.probe_source_size=2",
        "training.probe_every_steps=2",
        "training.save_every_steps=2",
        "training.guard.window_steps=9",
    ]
    sets = [word for value in values for word in ("--set", value)]
    assert invoke(["generate", "--backend", "mock", "-q", *sets]) == 0
    capsys.readouterr()
    return sets


def run(capsys, *arguments: str, code: int = 0):
    found = invoke(["train", "--json", *arguments])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out), captured.err


def lines(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(f"runs/quickstart/{name}.jsonl").open()]


def test_a_small_training_leaves_everything_behind(words, capsys):
    document, _ = run(capsys, *words)
    result = document["result"]
    assert (result["steps"], result["kept_step"], result["stopped_by"]) == (4, 4, None)
    assert (result["backend"], result["processes"]) == ("trl", 1)
    assert Path(result["adapter"], "adapter_model.safetensors").is_file()
    records = lines("metrics")
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    assert {"kl", "probe_f1", "source_f1"} <= set(records[1])
    effective = json.loads(Path("runs/quickstart/training.json").read_text())
    assert effective["settings"]["beta"] == 0.0
    assert effective["ignored"] == []
    again, _ = run(capsys, *words, "--resume")
    assert again["result"]["already_done"]


def test_passes_that_are_asked_for_outdo_the_profiles_steps(words, capsys):
    place = words.index("training.max_steps=4")
    open_end = [*words[: place - 1], *words[place + 1 :]]
    document, _ = run(capsys, *open_end, "--epochs", "0.5")
    assert document["result"]["steps"] == 3  # half of 12 inputs, two a step; the profile says 24
    again, _ = run(capsys, *words, "--epochs", "0.5", "--overwrite")
    assert again["result"]["steps"] == 4  # a --set says so


def test_a_guard_that_fires_ends_the_command_as_done_with_a_warning(words, capsys):
    """A random model's answers cannot be read: with a window of 2 that is a collapse."""
    fast = [*words, "--set", "training.guard.window_steps=2"]
    document, err = run(capsys, *fast)
    assert document["status"] == "done"
    assert document["result"]["stopped_by"] == "invalid"
    assert document["result"]["steps"] == 2
    (warning,) = document["warnings"]
    assert "collapse guard stopped the training at step 2" in warning
    assert "cannot be read" in err
    assert Path(document["result"]["adapter"], "adapter_model.safetensors").is_file()
    assert lines("stages")[-1]["stopped_by"] == "invalid"
    again, _ = run(capsys, *fast, "--resume")
    assert again["warnings"] == [warning]


def test_replay_and_sampling_by_confidence(words, capsys):
    sets = ["training.replay_share=0.2", "training.confidence_weight=sampling"]
    run(capsys, *words, *[w for value in sets for w in ("--set", value)])
    assert all(len(r["replayed"]) == len(r["inputs"]) == 1 for r in lines("metrics"))


def test_a_tracker_without_its_package_is_refused(words, capsys, monkeypatch):
    import ccrl_cli.trainers.trackers as trackers

    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    document, _ = run(capsys, *words, "--set", 'training.trackers=["wandb"]', code=3)
    assert "wandb" in document["error"]["message"]
    assert document["error"]["hint"].startswith("pip install wandb")


def test_tensorboard_gets_every_step(words, capsys):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run(capsys, *words, "--set", 'training.trackers=["tensorboard"]')
    found = events.EventAccumulator("runs/quickstart/tensorboard")
    found.Reload()
    steps = [event.step for event in found.Scalars("reward")]
    assert steps == [1, 2, 3, 4]


def test_unsloth_is_refused_where_it_cannot_run(words, capsys):
    document, _ = run(capsys, *words, "--backend", "unsloth", code=3)
    assert "nsloth" in document["error"]["message"]


def test_an_unknown_trainer_is_refused(words, capsys):
    document, _ = run(capsys, *words, "--backend", "magic", code=2)
    assert "training.backend" in document["error"]["message"]


def test_a_run_that_died_before_its_first_checkpoint_is_recorded_once(words, capsys, monkeypatch):
    late = [*words, "--set", "training.save_every_steps=50"]
    keep = TrainingJournal.on_step

    def die(self, record):
        keep(self, record)
        if record["step"] == 2:
            raise RuntimeError("killed")

    monkeypatch.setattr(TrainingJournal, "on_step", die)
    run(capsys, *late, code=1)
    assert [r["step"] for r in lines("metrics")] == [1, 2]
    monkeypatch.setattr(TrainingJournal, "on_step", keep)
    run(capsys, *late, "--resume")
    assert [r["step"] for r in lines("metrics")] == [1, 2, 3, 4]


def test_training_anew_removes_the_scores_of_the_old_adapter(words, capsys):
    run(capsys, *words)
    scores = Path("runs/quickstart/evaluation.json")
    scores.write_text("{}", encoding="utf-8")
    run(capsys, *words, "--overwrite")
    assert not scores.exists()


def test_memory_settings_may_change_and_others_may_not(words, capsys):
    run(capsys, *words)
    again, _ = run(capsys, *words, "--resume", "--set", "training.micro_batch_size=1")
    assert again["result"]["already_done"]
    refused, _ = run(capsys, *words, "--resume", "--set", "training.beta=0.5", code=2)
    assert "other settings" in refused["error"]["message"]


def test_a_last_stage_that_ends_between_rollouts_is_recorded(words, capsys):
    odd = ["training.num_iterations=2", "training.max_steps=3", "curriculum.shares=[0.5, 1.0]"]
    run(capsys, *words, *[w for value in odd for w in ("--set", value)])
    assert [r["step"] for r in lines("stages")] == [2, 3]
