"""Labels of a profile: what needs type scores, and mentions that the text has no place for."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.comparison.arms import arm_profile
from ccrl_cli.pipelines.labelling.calibration_file import calibration_path
from ccrl_cli.pipelines.labelling.labels import load_labels
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.completions import CompletionStore

SAID = [
    {"text": "NASA", "type": "probe"},
    {"text": "NASA", "type": "probe"},
    {"text": "ESA", "type": "probe"},
]


def profile_in(folder, *overrides, model="org/real", logprob=-0.1):
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
    completions = (Completion(json.dumps(SAID), logprob, 9, "stop"),) * 2
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
    assert list(labels.entity_confidence.values()) == [(1.0,)]
    assert list(labels.ranks(profile).values()) == [0.5]  # the only one of its type
    plain = load_profile("quickstart", ["curriculum.balance=none"]).profile
    assert labels.ranks(plain) is None


def test_balance_follows_the_metric_within_a_type(tmp_path):
    """A metric of whole labels ranks each entity by its label."""
    values = ("confidence.type_rule=votes", "confidence.metric=self_consistency")
    profile, domain = profile_in(tmp_path, *values)
    labels = load_labels(profile, domain)
    ((sure,),) = labels.entity_confidence.values()
    assert [sure] == list(labels.confidence.values())


def test_a_metric_that_the_store_cannot_give_is_refused(tmp_path):
    values = ("confidence.type_rule=votes", "confidence.metric=logprob")
    profile, domain = profile_in(tmp_path, *values, logprob=None)
    with pytest.raises(UsageError, match=r"metric 'logprob' cannot be computed here"):
        load_labels(profile, domain)


def test_what_the_start_named_is_known_where_the_policy_labelled(tmp_path):
    values = ("confidence.type_rule=votes", "confidence.metric=entity_vote")
    profile, domain = profile_in(tmp_path, *values)
    (count,) = load_labels(profile, domain).start_counts.values()
    assert count == 2  # NASA and ESA in both completions; copies count once
    other = load_profile("quickstart", ["model.name=org/other"]).profile
    pooled = profile.model_copy(update={"model": other.model})
    assert load_labels(pooled, domain).start_counts == {}


def test_arms_share_the_calibration_of_their_store(tmp_path):
    profile, _ = profile_in(tmp_path)
    assert calibration_path(profile).parent == profile.store_path.parent
    arm = arm_profile(profile, "curriculum", 1)
    assert arm.run_path != profile.run_path
    assert calibration_path(arm) == calibration_path(profile)


def test_a_label_is_written_with_the_names_that_its_prompt_lists(tmp_path):
    profile, _ = profile_in(
        tmp_path, "prompt.rename_types=1.0", "prompt.paraphrases={probe=['robot craft']}"
    )
    domain = load_domain(profile, "target")
    (example,) = domain.training_inputs()[0]
    shown = domain.shown_names(example, sample=0)
    assert shown.name("probe") == "robot craft"
    assert "robot craft" in str(domain.prompt(example, sample=0))
    assert domain.shown_names(example, sample=None).name("probe") == "probe"
