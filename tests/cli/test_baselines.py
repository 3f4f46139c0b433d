"""`ccrl baselines` and `ccrl evaluate --predictions`: what they say and what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.pipelines.comparison.arms import RECIPES
from made_arms import arms_of, write_arm


@pytest.fixture(autouse=True)
def _there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *words, code=0):
    assert invoke(list(words)) == code, capsys.readouterr().err
    return capsys.readouterr()


def document(capsys, *words, code=0):
    return json.loads(run(capsys, *words, "--json", code=code).out)


def test_list_says_what_each_arm_does(capsys):
    text = run(capsys, "baselines", "list").out
    for name, recipe in RECIPES.items():
        assert f"{name} " in text
        assert recipe.description in text
    found = document(capsys, "baselines", "list", "--set", "baselines.arms=['oracle']")
    assert [row["arm"] for row in found["result"]["arms"] if row["runs"]] == ["zero-shot", "oracle"]


def test_a_wrong_arm_names_the_nearest(capsys):
    found = document(capsys, "baselines", "run", "naive_rl", code=2)
    assert found["error"]["message"] == "there is no arm named 'naive_rl'"
    assert "did you mean naive-rl?" in found["error"]["hint"]
    found = document(capsys, "baselines", "run-all", "--arms", "curriculum,oracel", code=2)
    assert "did you mean oracle?" in found["error"]["hint"]


def test_an_arm_that_cannot_be_derived_stops_before_any_work(capsys):
    words = ("baselines", "run-all", "--pacing", "constant")
    assert "would be naive-rl again" in document(capsys, *words, code=2)["error"]["message"]
    assert not Path("runs").exists()


def test_compare_before_run_all(capsys):
    found = document(capsys, "baselines", "compare", code=3)
    assert "nothing to compare" in found["error"]["message"]
    assert "ccrl baselines run-all" in found["error"]["hint"]


def test_train_refuses_an_arm_without_training(capsys):
    found = document(capsys, "train", "--arm", "zero-shot", code=2)
    assert "is not trained" in found["error"]["message"]


@pytest.fixture
def arms(tmp_path):
    profile = arms_of(tmp_path)
    write_arm(profile, "zero-shot", 0, [(1, 1, 1)] * 9, [(1, 0, 0)] * 9)
    for seed in range(5):
        write_arm(profile, "naive-rl", seed, [(2, 1, 1)] * 9, [(1, 0, 1)] * 9, kl=0.25)
        write_arm(profile, "curriculum", seed, [(2, 0, 1)] * 9, [(1, 0, 0)] * 9, kl=0.125)
    write_arm(profile, "oracle", 0, [(2, 0, 0)] * 9, [(1, 0, 0)] * 9)
    return ("--set", f"run.dir={tmp_path.as_posix()}", "--set", "run.name=demo",
            "--set", "baselines.arms=['naive-rl','curriculum','oracle']")  # fmt: skip


def test_compare_answers_first(capsys, arms):
    text = run(capsys, "baselines", "compare", *arms).out
    lines = text.splitlines()
    # 2*2/(4 + 0 + 1) - 2*2/(4 + 1 + 1) = 0.8 - 0.667
    assert lines[0].startswith("The curriculum won over naive RL here")
    assert "target F1 +13.3 points" in lines[0]
    assert any("proves little" in line for line in lines)
    assert "oracle (trained on gold: a bound)" in text
    assert "budget of 8 updates" in text
    assert "not comparable" in text
    assert "ReasoningNER, AAAI 2026" in text


def test_compare_as_json(capsys, arms):
    found = document(capsys, "baselines", "compare", *arms)
    rows = {row["arm"]: row for row in found["result"]["rows"]}
    assert rows["curriculum"]["target_f1"] == {
        "mean": pytest.approx(0.8),
        "deviation": pytest.approx(0),
        "num_seeds": 5,
    }
    assert rows["curriculum"]["kl"]["mean"] == 0.125
    assert found["result"]["missing"] == []
    assert found["result"]["reference_scores"][0]["f1"] == 62.4
    assert "oracle" not in found["result"]["finding"]["text"]
    assert [caveat["kind"] for caveat in found["result"]["finding"]["caveats"]] == [
        "few-sentences", "one-start"
    ]  # fmt: skip
    target = next(c for c in found["result"]["comparisons"] if c["second"] == "naive-rl")
    assert len(target["trainings"]["differences"]) == len(target["pairs"]) == 5


def test_compare_as_csv(capsys, arms):
    run(capsys, "baselines", "compare", *arms, "--csv", "a.csv")
    rows = list(csv.DictReader(Path("a.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["arm"] for row in rows] == ["zero-shot", "naive-rl", "curriculum", "oracle"]
    assert float(rows[1]["target_f1"]) == pytest.approx(4 / 6)
    assert rows[1]["target_greedy"] == rows[1]["target_f1"]
    assert (rows[0]["kl"], rows[1]["kl"], rows[1]["updates"]) == ("", "0.25", "8")


def test_folders_of_arms_are_compared_over_domains(capsys, arms, tmp_path):
    other = arms_of(tmp_path / "other")
    write_arm(other, "naive-rl", 0, [(2, 1, 1)] * 9, [(1, 0, 1)] * 9, digest="second")
    write_arm(other, "curriculum", 0, [(2, 0, 1)] * 9, [(1, 0, 0)] * 9, digest="second")
    words = ("baselines", "compare", str(tmp_path / "demo" / "arms"))
    text = run(capsys, *words, str(tmp_path / "other" / "demo" / "arms")).out
    assert text.splitlines()[0].startswith(
        "Whether the curriculum beats naive RL on other domains cannot be told with 2 domains"
    )
    assert "target F1 over domains" in text
    assert "== second" in text
    found = document(capsys, *words, str(tmp_path / "other" / "demo" / "arms"))
    assert [part["target"] for part in found["result"]["domains"]] == ["d", "second"]
    assert found["counts"]["arms"] == 6


def test_compare_cannot_write_into_nothing(capsys, arms):
    found = document(capsys, "baselines", "compare", *arms, "--csv", f"{__file__}/a.csv", code=3)
    assert "cannot be written" in found["error"]["message"]


def test_the_table_can_be_printed_in_ascii(capsys, arms):
    from ccrl_cli.cli.output import printable

    class Ascii:
        encoding = "ascii"

    assert printable("41.2 ± 0.8", Ascii()) == "41.2 +- 0.8"


# --- evaluate without a model -------------------------------------------------------------------


def write(name, rows):
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def test_any_systems_file_is_scored(capsys):
    gold = write("gold.jsonl", [
        {"text": "NASA waits .", "entities": [{"text": "NASA", "type": "agency"}]},
        {"text": "ESA waits .", "entities": [{"text": "ESA", "type": "agency"}]},
    ])  # fmt: skip
    said = write("said.jsonl", [
        {"text": "NASA waits .", "entities": [{"text": "NASA", "type": "agency"}]},
        {"text": "Other .", "entities": []},
    ])  # fmt: skip
    words = ("evaluate", "--predictions", said, "--gold", gold)
    found = document(capsys, *words)
    assert found["result"]["scores"]["f1"] == pytest.approx(2 / 3)
    assert found["counts"] == {"sentences": 2, "missing": 1, "left_out": 1}
    assert len(found["warnings"]) == 2
    text = run(capsys, *words, "--errors", "5").out
    assert "66.7" in text
    assert "1 of 2 sentences have mistakes" in text
    assert "[- ESA | agency] waits ." in text


def test_both_files_are_needed(capsys):
    found = document(capsys, "evaluate", "--predictions", "x.jsonl", code=2)
    assert "belong together" in found["error"]["message"]
    found = document(capsys, "evaluate", "--predictions", "x.jsonl", "--gold", "y.jsonl", code=3)
    assert "does not exist" in found["error"]["message"]
