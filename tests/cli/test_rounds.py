"""`ccrl train` in rounds on a tiny model and mock labels: folders, journals, kills, options."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.config.load import load_profile
from ccrl_cli.pipelines.generation import generate as generating
from lazily import lazy, needs
from tiny_chat import write_tiny_chat

grpo = lazy("ccrl_cli.trainers.grpo")

pytestmark = needs("torch", "transformers", "trl", "peft")

RUN = Path("runs/quickstart")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_chat(tmp_path_factory.mktemp("model"))


@pytest.fixture
def words(model, tmp_path, monkeypatch, capsys) -> list[str]:
    """The settings of two small rounds, with mock completions of the first in place."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "model")  # one name: the mock labeller's mistakes depend on it
    values = [
        "model.name=./model",
        "generation.store=store.jsonl",
        "model.adapter=",
        "generation.backend=mock",
        "generation.mock_noise=0.6",
        "generation.constrained=false",
        "data.target.max_train_samples=12",
        "curriculum.rounds=2",
        "curriculum.held_out_share=0.3",
        "training.max_steps=4",
        "training.prompts_per_step=2",
        "training.micro_batch_size=8",
        "training.learning_rate=1e-2",
        "training.max_prompt_tokens=1000",
        "training.max_completion_tokens=96",  # room for labels, which earn what no sample does
        "training.lr_warmup_ratio=0",
        "training.probe_size=2",
        "training.probe_source_size=2",
        "training.probe_every_steps=1",
        "training.save_every_steps=1",
        "training.beta=0.05",
        "training.guard.enabled=false",
    ]
    sets = [word for value in values for word in ("--set", value)]
    assert invoke(["generate", "-q", *sets]) == 0
    capsys.readouterr()
    return sets


def train(capsys, *arguments: str, code: int = 0) -> dict:
    found = invoke(["train", "--json", *arguments])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out)


def lines(place: Path) -> list[dict]:
    return [json.loads(line) for line in place.open()]


def without_times(rows: list[dict]) -> list[dict]:
    timed = ("seconds_", "tokens_per_second", "completions_per_second")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in rows]


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_two_rounds_leave_one_adapter_and_a_folder_each(words, capsys):
    result = train(capsys, *words)["result"]
    assert (result["steps"], result["ended_by"]) == (4, "budget")
    first, second = result["rounds"]
    assert (first["steps"], second["steps"]) == (2, 2)
    assert first["agreement"] is None
    assert 0 < second["agreement"] < 1, "the mock labeller answers otherwise with another seed"
    assert first["held_out_inputs"] == 3
    assert 0 < first["held_out_agreement"] < 1
    assert second["held_out_agreement"] is None, "nobody labelled after it"
    assert weights(RUN / "adapter") == weights(RUN / "rounds/2/adapter")
    assert weights(RUN / "adapter") != weights(RUN / "rounds/1/adapter")
    metrics = lines(RUN / "metrics.jsonl")
    assert [(row["step"], row["round"]) for row in metrics] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    stages = lines(RUN / "stages.jsonl")
    assert [stage["stage"] for stage in stages] == list(range(1, len(stages) + 1))
    assert metrics[0]["open_share"] < metrics[3]["open_share"] == 1.0, "one pacing over both rounds"
    # Each folder is a run of its own, which the ordinary commands read.
    assert load_profile(str(RUN / "rounds/2/profile.toml")).profile.curriculum.round == 2
    assert invoke(["curriculum", "show", "-q", "-p", str(RUN / "rounds/2/profile.toml")]) == 0
    capsys.readouterr()
    # The page has a line each, with the labels of either derived again.
    assert invoke(["report", str(RUN), "--json"]) == 0
    assert not [w for w in json.loads(capsys.readouterr().out)["warnings"] if "pseudo-label" in w]
    page = (RUN / "report.html").read_text(encoding="utf-8")
    rows = page.split("Rounds: the adapted")[1].partition("<tbody>")[2].split("</tr>")[:2]
    found = [re.findall(r'(?:scope="row">|class="value">)([^<]+)<', row) for row in rows]
    assert [row[:2] for row in found] == [["1", "2"], ["2", "2"]]
    assert all(0 < float(row[2]) < 100 for row in found)
    assert found[1][3] == f"{100 * second['agreement']:.1f}"
    again = train(capsys, *words, "--resume")["result"]
    assert again["already_done"]
    assert again["rounds"] == result["rounds"]


def test_distances_of_a_later_round_are_from_the_start(words, capsys):
    train(capsys, *words)
    second = lines(RUN / "rounds/2/metrics.jsonl")
    last = lines(RUN / "rounds/1/metrics.jsonl")[-1]
    assert second[0]["start_kl"] > 0, "the round began with trained weights"
    assert last["kl"] > 0
    assert "start_kl_reference" not in second[0], "the reference is not what the round began with"
    assert second[0]["kl_rollouts"] > 1e-6, "the KL term is to the start"
    train(capsys, *words, "--overwrite", "--set", "curriculum.continue_from=start")
    again = lines(RUN / "rounds/2/metrics.jsonl")
    assert again[0]["start_kl"] == pytest.approx(0, abs=1e-7)
    assert again[0]["kl_rollouts"] == pytest.approx(0, abs=1e-6)


def test_held_out_inputs_are_labelled_and_never_drawn(words, capsys):
    from ccrl_cli.core.rounds import is_held_out

    train(capsys, *words)
    labelled = {row["input_id"] for row in lines(Path("store.jsonl"))}
    held = {key for key in labelled if is_held_out(key, 0.3)}
    drawn = {key for row in lines(RUN / "metrics.jsonl") for key in row["inputs"]}
    assert held
    assert drawn <= labelled - held
    assert {row["input_id"] for row in lines(RUN / "rounds/2/completions.jsonl")} == labelled


class Killed(BaseException):
    """A process that ends without a word."""


@pytest.mark.parametrize("place", ["first training", "labelling", "second training", "adapter"])
def test_a_kill_at_any_point_resumes_to_the_same_end(words, capsys, monkeypatch, place):
    straight = train(capsys, *words, "--set", "run.name=straight")["result"]
    with monkeypatch.context() as patch:
        _kill_at(patch, place)
        with pytest.raises(Killed):
            invoke(["train", "--json", *words])
    capsys.readouterr()
    result = train(capsys, *words, "--resume")["result"]
    assert weights(RUN / "adapter") == weights(Path("runs/straight/adapter"))
    for name in ("metrics.jsonl", "stages.jsonl", "rounds/2/completions.jsonl"):
        ours, theirs = lines(RUN / name), lines(Path("runs/straight") / name)
        if name.endswith("completions.jsonl"):
            ours, theirs = ([row["completions"] for row in rows] for rows in (ours, theirs))
        assert (
            without_times(ours) == without_times(theirs)
            if "completions" not in name
            else (ours == theirs)
        )
    for mine, other in zip(result["rounds"], straight["rounds"], strict=True):
        assert {k: v for k, v in mine.items() if "seconds" not in k and k != "run_dir"} == {
            k: v for k, v in other.items() if "seconds" not in k and k != "run_dir"
        }


def _kill_at(patch, place: str) -> None:
    """Let a process end in the midst of a part."""
    if place == "labelling":
        append = generating.CompletionStore.append

        def failing(self, record, **more):
            if "rounds" in str(self.path) and len(self) >= 5:
                raise Killed
            append(self, record, **more)

        patch.setattr(generating.CompletionStore, "append", failing)
        return
    if place == "adapter":
        patch.setattr("ccrl_cli.models.mixing.mix_adapters", _killed)
        return
    wanted = 2 if place == "first training" else 4
    seen = iter(range(1, 9))
    after = grpo._Run.after_step

    def dying(self, step, logs):
        if next(seen) == wanted:
            raise Killed
        after(self, step, logs)

    patch.setattr(grpo._Run, "after_step", dying)


def _killed(*_args, **_more):
    raise Killed


def test_labels_that_agree_end_the_rounds(words, capsys):
    low = train(capsys, *words, "--set", "curriculum.stop_when_agreement=0.01")["result"]
    assert (low["steps"], low["ended_by"], len(low["rounds"])) == (2, "agreement", 1)
    assert weights(RUN / "adapter") == weights(RUN / "rounds/1/adapter")


def test_a_training_is_not_mixed_with_another(words, capsys):
    train(capsys, *words)
    assert "already holds a training" in train(capsys, *words, code=2)["error"]["message"]
    other = [*words, "--set", "curriculum.continue_from=start"]
    assert "other settings" in train(capsys, *other, "--resume", code=2)["error"]["message"]
    few = [*words, "--set", "training.max_steps=1", "--set", "run.name=few"]
    error = train(capsys, *few, code=2)["error"]
    assert (
        error["message"]
        == "1 steps are too few for 2 rounds: every round needs an update of its own"
    )


def test_the_mean_of_rounds_changes_weights_by_the_mean_of_their_changes(words, capsys):
    import torch
    from safetensors.torch import load_file

    train(capsys, *words, "--set", "curriculum.keep_rounds=mean")
    parts = [load_file(str(RUN / f"rounds/{n}/adapter/adapter_model.safetensors")) for n in (1, 2)]
    mean = load_file(str(RUN / "adapter/adapter_model.safetensors"))
    config = json.loads((RUN / "adapter/adapter_config.json").read_text())
    scale = json.loads((RUN / "rounds/1/adapter/adapter_config.json").read_text())
    factor = scale["lora_alpha"] / scale["r"]
    assert config["lora_alpha"] / config["r"] == 1
    for name in (key for key in mean if ".lora_A." in key):
        other = name.replace(".lora_A.", ".lora_B.")
        wanted = sum(part[other] @ part[name] for part in parts) * factor / 2
        torch.testing.assert_close(mean[other] @ mean[name], wanted)


def test_entities_open_over_both_rounds_and_every_sentence_is_drawn(words, capsys):
    result = train(
        capsys, *words, "--set", "curriculum.unit=entity", "--set", "training.prompts_per_step=4"
    )["result"]
    assert result["inputs"] == 9, "all but the held-out inputs, from the first step"
    metrics = lines(RUN / "metrics.jsonl")
    shares = [round(row["open_share"], 1) for row in metrics]  # labels differ in their mentions
    assert shares == sorted(shares)
    assert shares[0] < shares[-1] == 1.0
    assert metrics[0]["num_open"] > 0
    drawn = {key for row in metrics[:2] for key in row["inputs"]}
    assert len(drawn) == 6, "two steps of three different sentences, and one of the source"
    assert invoke(["curriculum", "show", *words, "--set", "curriculum.unit=entity"]) == 0
    assert "open mentions" in capsys.readouterr().out
