"""`ccrl evaluate` and the arm `labeller` with a real, tiny model on disk: every way of decoding."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "peft")):
    pytest.skip("needs torch, transformers and peft", allow_module_level=True)

from answering_model import write_adapter, write_answering_model
from ccrl_cli.cli.app import invoke

SENTENCES = ("NASA sent Juno to Jupiter .", "Juno left NASA .", "Nothing .", "NASA waits .")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_answering_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run_dir(tmp_path, monkeypatch, model) -> Path:
    """A profile for the tiny model with four sentences of each domain; its run directory."""
    monkeypatch.chdir(tmp_path)
    for domain in ("source", "target"):
        for split in ("train", "test"):
            place = Path(domain) / f"{split}.jsonl"
            place.parent.mkdir(exist_ok=True)
            with place.open("w", encoding="utf-8") as stream:
                for sentence in SENTENCES:
                    found = [{"text": "NASA", "type": "agency"}] if "NASA" in sentence else []
                    found += [{"text": "Juno", "type": "probe"}] if "Juno" in sentence else []
                    text = f"{sentence} {split}"
                    stream.write(json.dumps({"text": text, "entities": found}) + "\n")
    Path("ccrl.toml").write_text(
        f"""
[run]
name = "tiny"
[model]
name = '{model}'
dtype = "float32"
[data.source]
path = "source"
[data.target]
path = "target"
[prompt]
template = "compact"
[generation]
num_completions = 3
max_tokens = 120
[confidence]
metric = "type_posterior"
label = "entity_vote"
type_rule = "posterior"
[evaluation]
decode = "typed"
max_tokens = 120
""",
        encoding="utf-8",
    )
    return Path("runs/tiny")


def ask(capsys, *words, code=0):
    assert invoke([*words, "--json"]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)["result"]


def scored(run_dir):
    return {path.name for path in run_dir.glob("predictions-*.jsonl")}


def test_the_target_is_decoded_as_the_profile_says_and_by_the_labeller(run_dir, capsys, model):
    write_adapter(model, run_dir / "adapter", scale=2.0)
    result = ask(capsys, "evaluate")
    target, source = (result["domains"][role] for role in ("target", "source"))
    assert result["decode"] == "typed"
    assert {
        name: sorted(k for k, v in d.items() if v) for name, d in target["decoded"].items()
    } == {
        "typed": ["after", "before", "delta_f1"],
        "vote": ["before"],
    }
    assert source["decoded"] == {}
    assert source["before"]["f1"] is not None
    labeller, ours = target["decoded"]["vote"]["before"], target["decoded"]["typed"]["after"]
    over = target["over_labeller"]
    assert over["value"] == pytest.approx(ours["f1"] - labeller["f1"])
    # The tiny model writes space_probe, which is not asked for: evidence says a type that is.
    assert target["before"]["num_unknown_type"] > 0
    assert target["decoded"]["typed"]["before"]["num_unknown_type"] == 0
    assert scored(run_dir) == {
        *(f"predictions-{role}-{when}.jsonl" for role in ("target", "source")
          for when in ("before", "after")),
        *(f"predictions-target-{name}.jsonl" for name in
          ("before-typed", "after-typed", "before-vote")),
    }  # fmt: skip
    rows = (run_dir / "predictions-target-before-typed.jsonl").read_text().splitlines()
    sure = [entity["confidence"] for row in rows for entity in json.loads(row)["predicted"]]
    assert sure and all(0 < value <= 1 for value in sure)  # noqa: PT018
    assert ask(capsys, "evaluate")["answered"] == 0
    assert json.loads((run_dir / "evaluation.json").read_text())["domains"]["target"] == target


def test_a_way_that_is_asked_for_is_answered_in_both_domains_and_no_other(run_dir, capsys):
    result = ask(capsys, "evaluate", "--phase", "before", "--decode", "vote", "--majority")
    for role in ("target", "source"):
        assert list(result["domains"][role]["decoded"]) == ["vote", "majority"]
    assert result["answered"] == 4 * 2 * 3
    # The samples of both are the same: with them kept, another way of reading asks nothing new.
    assert len(list(run_dir.glob("samples-*-before.jsonl"))) == 2
    assert not list(run_dir.glob("types-*.jsonl"))
    assert not list(run_dir.glob("answers-*.jsonl"))
    text = invoke(["evaluate", "--phase", "before", "--decode", "greedy"])
    assert text == 0
    out = capsys.readouterr().out
    assert "before, vote" in out
    assert "of the untrained labeller" in out


def test_a_server_is_no_weights_to_score(run_dir, capsys):
    assert invoke(["evaluate", "--set", "evaluation.backend=openai"]) == 2
    assert "asks a server" in capsys.readouterr().err


def test_the_arm_labeller_is_the_start_decoded_by_vote(run_dir, capsys):
    assert invoke(["baselines", "run", "labeller", "--set", "baselines.seeds=1"]) == 0
    capsys.readouterr()
    arm, zero = (Path("runs/tiny/arms") / f"{name}-seed0" for name in ("labeller", "zero-shot"))
    found = json.loads((arm / "evaluation.json").read_text())["domains"]["target"]
    start = json.loads((zero / "evaluation.json").read_text())["domains"]["target"]
    assert found["after"] == start["decoded"]["vote"]["before"]
    assert found["before"] == start["before"]
    assert found["after"] != start["before"]


def test_single_sentences_take_the_type_prior_of_the_training_inputs(run_dir, capsys):
    words = ("predict", SENTENCES[0], "--decode", "typed")
    assert ask(capsys, *words)["type_prior"] == "content_free"  # no labels were made yet
    assert invoke(["generate"]) == invoke(["curriculum", "score"]) == 0
    capsys.readouterr()
    found = ask(capsys, *words)
    assert found["type_prior"] == "training inputs"
    alone = found["rows"][0]["entities"]
    # The prior is fitted before, so an answer does not depend on what is asked with it.
    assert ask(capsys, *words, "Juno left .")["rows"][0]["entities"] == alone
    other = ask(capsys, *words, "--types", "ship,planet")
    assert other["type_prior"] == "content_free"  # scores of other types tell nothing
