"""Paraphrased type names: reversible, seeded by (input, k), read back from answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.config.load import load_profile
from ccrl_cli.core.parsing import parse_completion
from ccrl_cli.data.type_names import TypeNames
from ccrl_cli.errors import DataError
from ccrl_cli.pipelines.common.domains import Inputs, load_domain, parse_split
from ccrl_cli.records import Entity

TYPES = ("person", "space_agency")
NAMES = TypeNames.build(TYPES, paraphrases={"person": ["human", "individual"], "other": ["x"]})
PARAPHRASES = [
    "prompt.rename_types=0.5",
    'prompt.paraphrases.astronaut=["spacefarer", "crew member"]',
]


def test_every_name_leads_back_to_its_type():
    assert NAMES.by_name == {
        "human": "person",
        "individual": "person",
        "person": "person",
        "space agency": "space_agency",
    }
    assert NAMES.identifier("HUMAN") == "person"
    answer = json.dumps([{"text": "Ann", "type": "individual"}])
    parse = parse_completion(answer, NAMES.by_name)
    assert (parse.outcome, parse.entities) == ("valid", (Entity("Ann", "person"),))


def test_renaming_is_seeded_and_keeps_to_the_rate():
    assert NAMES.renamed(0.0, 1).pairs == NAMES.pairs
    assert NAMES.renamed(0.5, 7) == NAMES.renamed(0.5, 7)
    shown = [NAMES.renamed(0.5, seed).name("person") for seed in range(400)]
    assert {"person", "human", "individual"} == set(shown)
    assert 150 < shown.count("person") < 250  # half of 400
    assert {NAMES.renamed(1.0, seed).name("space_agency") for seed in range(9)} == {"space agency"}
    assert {NAMES.renamed(1.0, seed).name("person") for seed in range(30)} == {
        "human",
        "individual",
    }


def test_digest_changes_with_paraphrases_alone():
    plain = TypeNames.build(TYPES)
    assert plain.digest != NAMES.digest
    assert plain.digest == TypeNames.build(TYPES, paraphrases={"other": ["x"]}).digest


@pytest.mark.parametrize("taken", ["space agency", "Space  Agency", "a, b", " "])
def test_a_paraphrase_that_is_not_reversible_is_refused(taken):
    with pytest.raises(DataError):
        TypeNames.build(TYPES, paraphrases={"person": [taken]})


def test_prompts_of_the_samples_differ_and_the_plain_one_does_not():
    domain = load_domain(load_profile("quickstart", PARAPHRASES).profile, "target")
    plain = load_domain(load_profile("quickstart").profile, "target")
    example = domain.split("train").examples[0]
    prompts = {str(domain.prompt(example, sample=k)) for k in range(16)}
    assert any("spacefarer" in prompt for prompt in prompts)
    assert any("crew member" in prompt for prompt in prompts)
    assert any("astronaut" in prompt for prompt in prompts)
    assert domain.prompt(example, sample=3) == domain.prompt(example, sample=3)
    assert domain.prompt(example) == plain.prompt(example)
    assert domain.prompt_digest != plain.prompt_digest
    assert domain.labels_digest != plain.labels_digest


def test_splits_by_name():
    assert parse_split("dev") == parse_split("target:dev") == Inputs("target", "dev")
    assert str(parse_split("source:test")) == "source:test"
    assert str(parse_split("train")) == "train"


def test_other_splits_share_the_store(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["generate", "--backend", "mock", "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["counts"]["generated"]
    words = ["generate", "--backend", "mock", "--json", "--resume", "--split", "dev"]
    assert invoke(words) == 0
    dev = json.loads(capsys.readouterr().out)["counts"]
    assert dev["records"] == train + dev["generated"]
    assert dev["generated"] > 0
    # What was there is not owed again, and training labels read their own inputs alone.
    assert invoke(words) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "nothing"
    assert invoke(["curriculum", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["num_inputs"] == train
    assert Path("runs/quickstart/completions.jsonl").exists()
    assert invoke(["generate", "--split", "nonsense", "--json"]) == 2


def test_metrics_that_need_more_than_completions_do_not_stop_generation(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for metric in ("type_posterior", "combined"):
        words = ["--set", f"confidence.metric={metric}", "--set", f"run.name={metric}", "-q"]
        assert invoke(["generate", "--backend", "mock", "--max-samples", "3", *words]) == 0
    capsys.readouterr()
