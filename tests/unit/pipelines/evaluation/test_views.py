"""Which sentences are scored, and whether they were trained on."""

from __future__ import annotations

import json

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.models.weights import Weights
from ccrl_cli.pipelines.common.weights import warmup_digest
from ccrl_cli.pipelines.evaluation.answering import (
    View,
    Way,
    step_name,
    stored_predictions,
)
from ccrl_cli.pipelines.evaluation.prediction import Answer, place_answer
from ccrl_cli.store.atomic import write_json_lines
from ccrl_cli.store.runs import RunDirectory


def profile_of(folder, *values):
    """A profile whose target and source are one folder of three splits; a text is in two."""
    told = {"train": ("Ada", "Bob"), "dev": ("Cy", "Di"), "test": ("Ada", "Eve")}
    for split, names in told.items():
        rows = [
            json.dumps({"text": f"{name} left .", "entities": [{"text": name, "type": "p"}]})
            for name in names
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    place = folder.as_posix()
    return load_profile("quickstart", [
        "data.target.name=", f"data.target.path={place}", "data.source.name=",
        f"data.source.path={place}", "data.type_names={}", *values,
    ]).profile  # fmt: skip


@pytest.mark.parametrize(
    ("split", "mode"), [("test", "held-out"), ("dev", "held-out"), ("train", "transductive")]
)
def test_a_split_with_any_sentence_that_was_trained_on_is_transductive(tmp_path, split, mode):
    """Ada is left out of training, since the test file has her; Bob is trained on."""
    view = View.load(profile_of(tmp_path, f"evaluation.split={split}"), "target")
    assert (view.split.split, view.mode) == (split, mode)


def test_the_source_is_scored_on_sentences_that_were_not_replayed(tmp_path):
    values = ("evaluation.split=dev", "training.replay_split=dev")
    replayed = View.load(profile_of(tmp_path, *values, "training.replay_share=0.2"), "source")
    assert replayed.split.split == "test"
    plain = View.load(profile_of(tmp_path, *values, "training.replay_share=0"), "source")
    assert plain.split.split == "dev"


def test_a_warm_up_is_another_where_it_reads_other_things(tmp_path):
    known = warmup_digest(profile_of(tmp_path))
    for value in (
        "prompt.paraphrases={p=['human']}",
        "data.target.test_split=dev",
        "training.lora_target_modules=['q_proj']",
    ):
        assert warmup_digest(profile_of(tmp_path, value)) != known, value
    for value in ("data.target.max_test_samples=1", "training.learning_rate=0.5"):
        assert warmup_digest(profile_of(tmp_path, value)) == known, value


def test_answers_count_with_the_weights_and_settings_they_were_given_with(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    runs = f"run.dir={(tmp_path / 'runs').as_posix()}"
    profile = profile_of(data, runs)
    view = View.load(profile, "target")
    way = Way("after", Weights(tmp_path, tmp_path, "model", "adapter"))
    given = Answer("valid", text="[]")
    rows = [place_answer(e, given).row() for e in view.split.examples]
    with RunDirectory(profile.run_path) as run:
        write_json_lines(run.predictions_path("target-after"), rows)
        run.mark_done(step_name("target", way), view.digest(profile, way))
        found = stored_predictions(profile, run, view, way)
        assert [p.completion for p in found] == ["[]", "[]"]
        other = Way("after", Weights(tmp_path, tmp_path, "model", "another adapter"))
        assert stored_predictions(profile, run, view, other) is None
        longer = profile_of(data, runs, "evaluation.max_tokens=7")
        assert stored_predictions(longer, run, View.load(longer, "target"), way) is None
