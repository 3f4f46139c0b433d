"""Labels of a profile: what needs type scores, and mentions that the text has no place for."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.domains import load_domain
from ccrl_cli.pipelines.labels import load_labels
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.completions import CompletionStore

SAID = [
    {"text": "NASA", "type": "probe"},
    {"text": "NASA", "type": "probe"},
    {"text": "ESA", "type": "probe"},
]


def profile_in(folder, *overrides, model="org/real"):
    """Return a profile whose one sentence has two equal completions in the store."""
    data = folder / "data"
    data.mkdir()
    row = json.dumps({"text": "NASA sent Juno .", "entities": [{"text": "NASA", "type": "probe"}]})
    (data / "train.jsonl").write_text(row + "\n", encoding="utf-8")
    profile = load_profile("quickstart", [
        f"run.dir={(folder / 'runs').as_posix()}", f"model.name={model}", "data.target.name=",
        f"data.target.path={data.as_posix()}", "data.target.labels=['agency', 'probe']",
        "data.type_names={}", *overrides,
    ]).profile  # fmt: skip
    domain = load_domain(profile, "target")
    (example,) = domain.training_inputs()[0]
    completions = (Completion(json.dumps(SAID), -0.1, 9, "stop"),) * 2
    record = Record(example.id, example.text, model, completions, {}, (), 1.0, "2026-01-01", 0.1)
    with CompletionStore(profile.store_path) as store:
        store.append(record)
    return profile, domain


@pytest.mark.parametrize(
    "values",
    [
        ("confidence.type_rule=votes", "confidence.metric=type_posterior"),
        ("confidence.type_rule=posterior", "confidence.metric=entity_vote"),
    ],
)
def test_what_reads_type_scores_says_how_to_make_them(tmp_path, values):
    profile, domain = profile_in(tmp_path, *values)
    with pytest.raises(PreconditionError, match="1 of 1 inputs have no type scores") as info:
        load_labels(profile, domain)
    assert "ccrl curriculum score" in info.value.hint


def test_votes_stand_in_for_the_type_scores_of_mock_completions(tmp_path):
    profile, domain = profile_in(tmp_path, model="mock:0.1")
    (label,) = load_labels(profile, domain).labels.values()
    assert (label.metric, label.entities) == ("entity_vote", (Entity("NASA", "probe"),))


def test_mentions_and_copies_without_a_place_leave_a_label(tmp_path):
    values = ("confidence.type_rule=votes", "confidence.metric=entity_vote")
    profile, domain = profile_in(tmp_path, *values)
    (label,) = load_labels(profile, domain).labels.values()
    assert label.entities == (Entity("NASA", "probe"),)


def test_balance_ranks_by_votes_where_no_type_is_scored(tmp_path):
    values = ("confidence.type_rule=votes", "confidence.metric=entity_vote")
    profile, domain = profile_in(tmp_path, *values)
    labels = load_labels(profile, domain)
    assert list(labels.sureness.values()) == [(1.0,)]
    assert labels.ranks(profile) is None
    balanced = load_profile(
        "quickstart", ["curriculum.balance=types", "curriculum.refresh_every_steps=0"]
    ).profile
    assert list(labels.ranks(balanced).values()) == [0.5]  # the only one of its type


def test_balance_and_refresh_exclude_each_other():
    with pytest.raises(UsageError, match="balance 'types' orders the inputs once"):
        load_profile("quickstart", ["curriculum.balance=types", "curriculum.refresh_every_steps=5"])
