"""No arm but the oracle sees gold: what reaches the trainer is the same whatever gold says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl")):
    pytest.skip("needs torch, transformers and trl", allow_module_level=True)

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.alignment import Aligner
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.comparison.arms import RECIPES, arm_profile, find_recipe
from ccrl_cli.pipelines.comparison.baselines import variant_of
from ccrl_cli.pipelines.labelling.labels import load_labels
from ccrl_cli.pipelines.labelling.oracle import gold_labels
from ccrl_cli.pipelines.training.train import TrainOptions, train
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.completions import CompletionStore
from tiny_chat import write_tiny_chat

TEXTS = ("NASA sent Juno .", "ESA built Rosetta .", "JAXA flew Hayabusa .", "Nothing here .")
SAID = '[{"text": "NASA", "type": "probe"}, {"text": "ESA", "type": "agency"}]'
TRAINED = [name for name, recipe in RECIPES.items() if recipe.trained]


class Seen(Exception):  # noqa: N818 (no error: it ends the training where it would begin)
    """What a trainer was given."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_chat(tmp_path_factory.mktemp("model") / "tiny")


def corpus(folder, gold):
    """Write a target whose training sentences have the given gold types, and return its path."""
    folder.mkdir()
    rows = [
        {"text": text, "entities": [{"text": text.split()[0], "type": gold}] if number < 3 else []}
        for number, text in enumerate(TEXTS)
    ]
    for name, part in (("train", rows), ("test", [{"text": "x y", "entities": []}])):
        lines = [json.dumps(row) + "\n" for row in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def profile_for(folder, model, data):
    return load_profile("quickstart", [
        f"run.dir={(folder / 'runs').as_posix()}", f"model.name={model.as_posix()}",
        "model.adapter=", "model.dtype=float32", "data.target.name=",
        f"data.target.path={data.as_posix()}", "data.target.labels=['agency', 'probe']",
        "data.type_names={}", "training.max_prompt_tokens=900", "baselines.threshold=0.1",
        "confidence.type_rule=votes", "confidence.metric=entity_vote",
    ]).profile  # fmt: skip


def store_completions(profile):
    with CompletionStore(profile.store_path) as store:
        for example in load_domain(profile, "target").training_inputs()[0]:
            samples = (Completion(SAID, -0.1, 9, "stop"), Completion("[]", -0.2, 2, "stop"))
            store.append(Record(example.id, example.text, "m", samples, {}))


def given_to_trainer(profile, arm, monkeypatch):
    """Return everything that a trainer is given for an arm, as comparable values."""
    from ccrl_cli.trainers import plain, sft

    def spy_grpo(loaded, task, sampler, settings, work, hooks, decode=None):
        raise Seen({
            key: (row.prompt, row.weight, dict(row.target.places), row.target.abstained,
                  dict(row.target.votes))
            for key, row in task.inputs.items()
        }, sampler.state_dict()["order"])  # fmt: skip

    def spy_sft(loaded, pairs, settings, work, *, on_step, section):
        raise Seen([loaded.text(prompt) + loaded.text(reply) for prompt, reply in pairs])

    monkeypatch.setattr(plain, "train_grpo", spy_grpo)
    monkeypatch.setattr(sft, "train_supervised", spy_sft)
    own = arm_profile(profile, arm, 0)
    with pytest.raises(Seen) as seen:
        train(own, TrainOptions(variant=variant_of(find_recipe(arm))), reporter=NullReporter())
    return seen.value.args


@pytest.fixture(scope="module")
def two_worlds(tmp_path_factory, model):
    """Two profiles whose sentences are alike and whose gold labels are not."""
    profiles = []
    for gold in ("agency", "probe"):
        folder = tmp_path_factory.mktemp(gold)
        profile = profile_for(folder, model, corpus(folder / "data", gold))
        store_completions(profile)
        profiles.append(profile)
    return profiles


@pytest.mark.parametrize("arm", TRAINED)
def test_gold_reaches_the_oracle_alone(two_worlds, arm, monkeypatch):
    one, other = (given_to_trainer(profile, arm, monkeypatch) for profile in two_worlds)
    assert (one == other) == (arm != "oracle")


@pytest.mark.parametrize("arm", [arm for arm in TRAINED if RECIPES[arm].trainer == "grpo"])
def test_examples_reach_training_without_gold(two_worlds, arm, monkeypatch):
    from ccrl_cli.pipelines.training import task as module

    seen = []

    def spy(example):
        seen.append(example.gold)
        return Aligner(example)

    monkeypatch.setattr(module, "Aligner", spy)
    inputs, order = given_to_trainer(two_worlds[0], arm, monkeypatch)
    assert sorted(order) == sorted(inputs)
    assert len(seen) >= len(inputs)
    assert set(seen) == {None}


def test_all_arms_are_given_the_same_inputs(two_worlds, monkeypatch):
    names = [arm for arm in TRAINED if RECIPES[arm].trainer == "grpo" and arm != "threshold-only"]
    found = [sorted(given_to_trainer(two_worlds[0], arm, monkeypatch)[0]) for arm in names]
    assert all(keys == found[0] for keys in found)
    assert len(found[0]) == len(TEXTS)


def test_gold_labels_say_what_they_are(two_worlds):
    domain = load_domain(two_worlds[0], "target")
    found = gold_labels(domain, load_labels(two_worlds[0], domain))
    label = next(label for label in found.labels.values() if label.entities)
    assert (label.entities, label.rule, label.metric) == (
        (Entity("NASA", "agency"),), "oracle", "oracle",
    )  # fmt: skip
    assert all(example.gold is None for example in found.examples.values())
    assert label.votes == ((Entity("NASA", "agency"), 1.0),)
    balanced = two_worlds[0].model_copy(
        update={"curriculum": two_worlds[0].curriculum.model_copy(update={"balance": "types"})}
    )
    assert set(found.ranks(balanced)) == set(found.labels)
    assert arm_profile(balanced, "oracle", 0).curriculum.balance == "none"
    assert arm_profile(balanced, "curriculum", 0).curriculum.balance == "types"


def test_the_oracle_needs_gold(two_worlds, tmp_path, model):
    folder = tmp_path / "bare"
    folder.mkdir()
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    (folder / "train.jsonl").write_text("".join(rows), encoding="utf-8")
    profile = profile_for(tmp_path, model, folder)
    store_completions(profile)
    domain = load_domain(profile, "target")
    with pytest.raises(PreconditionError, match=r"4 of 4 training inputs .* have none"):
        gold_labels(domain, load_labels(profile, domain))


@pytest.mark.parametrize("arm", ["zero-shot", "majority-vote"])
def test_arms_without_training_cannot_be_trained(arm):
    with pytest.raises(UsageError, match="is not trained"):
        variant_of(find_recipe(arm))


def test_the_contract_names_every_module_that_trains():
    import tomllib

    place = Path(__file__).parents[4] / "pyproject.toml"
    contracts = tomllib.loads(place.read_text(encoding="utf-8"))["tool"]["importlinter"]
    (wall,) = [c for c in contracts["contracts"] if "oracle" in c["name"]]
    assert wall["forbidden_modules"] == ["ccrl_cli.pipelines.labelling.oracle"]
    pipelines = {f"ccrl_cli.pipelines.{name}" for name in ("training", "labelling.labels")}
    assert pipelines | {"ccrl_cli.trainers"} <= set(wall["source_modules"])
