"""`ccrl curriculum` on mock completions of the sample corpora."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.core.type_evidence import spans_to_score
from ccrl_cli.store.jsonl import JsonlWriter

RUN = Path("runs/quickstart")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder with mock completions of train, dev and the source's dev."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert invoke(["generate", "--backend", "mock", "-q"]) == 0
        for split in ("dev", "source:test"):
            words = ["generate", "--backend", "mock", "--split", split, "--resume", "-q"]
            assert invoke(words) == 0
    return folder


@pytest.fixture
def here(filled, tmp_path, monkeypatch):
    shutil.copytree(filled, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")


def run(capsys, *words, code=0):
    capsys.readouterr()
    assert invoke(["curriculum", *words, "--json"]) == code
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    return json.loads(out), err


def text(capsys, *words):
    capsys.readouterr()
    assert invoke(["curriculum", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_show_answers_what_a_user_asks_before_paying(capsys):
    document, _ = run(capsys, "show")
    view = document["result"]
    assert document["counts"]["inputs"] == view["num_inputs"] == sum(view["histogram"])
    assert [part["share"] for part in view["top"]] == [0.1, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert view["top"][-1]["oracle_f1"] == pytest.approx(view["oracle_f1"])
    assert view["trust_finding"].startswith("the surest")
    assert "AUROC" in view["oracle_finding"]
    assert view["stages"][-1]["num_open"] == view["num_inputs"]
    assert view["stages"][-1]["signal_share"] == pytest.approx(view["signal_share"])
    assert view["reportable"] is False
    shown = text(capsys, "show")
    assert "Surest labels" in shown
    assert "no gradient yet" in shown
    assert "not reportable" in shown


@pytest.mark.usefixtures("here")
def test_show_says_what_opens_first_and_balance_evens_it_out(capsys):
    plain = run(capsys, "show", "--set", "curriculum.balance=none")[0]["result"]
    balanced = run(capsys, "show")[0]["result"]
    assert plain["stages"][-1]["skew"] == balanced["stages"][-1]["skew"] == pytest.approx(0)
    assert balanced["stages"][0]["skew"] < plain["stages"][0]["skew"]
    assert (plain["balance"], balanced["balance"]) == ("none", "types")
    shown = text(capsys, "show")
    assert "in confidence order, types in balance" in shown
    assert "other mix %" in shown


@pytest.mark.usefixtures("here")
def test_show_says_when_no_label_is_worth_the_trust(capsys):
    document, _ = run(capsys, "show", "--trust", "1.0", "--bins", "fixed", "--num-bins", "4")
    assert len(document["result"]["bins"]) == 4
    finding = document["result"]["trust_finding"]
    assert finding.startswith(("no set of surest labels has an F1 of 100%", "the surest"))


@pytest.mark.usefixtures("here")
def test_all_inputs_that_agree_have_no_signal(capsys):
    """Under exact votes of one, what every completion says earns everybody the same."""
    document, _ = run(capsys, "show", "--bins", "mass")
    surest = document["result"]["bins"][-1]
    assert surest["low"] == 1.0
    assert surest["signal_share"] < document["result"]["bins"][0]["signal_share"]


@pytest.mark.usefixtures("here")
def test_plot_compares_every_pacing(capsys, tmp_path):
    picture = tmp_path / "pacings.svg"
    pytest.importorskip("matplotlib")
    document, err = run(capsys, "plot", "--pacing", "root", "-o", str(picture))
    view = document["result"]
    assert [curve["pacing"] for curve in view["curves"]] == [
        *("linear", "root", "log", "exponential", "step", "constant"),
    ]
    assert all(curve["shares"][-1] == 1.0 for curve in view["curves"])
    assert all(curve["shares"] == sorted(curve["shares"]) for curve in view["curves"])
    assert view["run"] is None
    assert f"wrote {picture}" in err
    assert b"<svg" in picture.read_bytes()
    again = tmp_path / "again.svg"
    run(capsys, "plot", "--pacing", "root", "-o", str(again))
    assert again.read_bytes() == picture.read_bytes()
    shown = text(capsys, "plot")
    assert "S step" in shown
    assert "step (chosen)" in shown


@pytest.mark.usefixtures("here")
def test_plot_shows_what_a_run_opened(capsys):
    plan = run(capsys, "plot")[0]["result"]
    chosen = next(c for c in plan["curves"] if c["pacing"] == plan["chosen"])
    with JsonlWriter(RUN / "metrics.jsonl") as metrics:
        for step, share in enumerate(chosen["shares"][:10], start=1):
            count = round(share * plan["num_inputs"])
            metrics.append({"step": step, "open_share": share, "num_open": count})
    with JsonlWriter(RUN / "stages.jsonl") as stages:
        stages.append(
            {"step": 8, "stage": 1, "steps": 8, "num_open": 40, "open_share": 0.25, "reward": 0.9}
        )
    document, _ = run(capsys, "plot")
    opened = document["result"]["run"]
    assert opened["as_planned"] is True
    assert opened["steps"] == list(range(1, 11))
    assert opened["stages"][0]["reward"] == 0.9
    assert document["run_dir"] == str(RUN)
    other = run(capsys, "plot", "--pacing", "linear")[0]["result"]["run"]
    assert other["as_planned"] is False
    shown = text(capsys, "plot")
    assert "* opened by the run" in shown
    assert "10 steps recorded, as planned" in shown


@pytest.mark.usefixtures("here")
def test_a_damaged_journal_is_named(capsys):
    with JsonlWriter(RUN / "metrics.jsonl") as metrics:
        metrics.append({"step": 1})
    document, _ = run(capsys, "plot", code=5)
    assert "metrics.jsonl" in document["error"]["message"]


def test_plot_needs_no_store(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document, err = run(capsys, "plot")
    assert document["result"]["num_inputs"] == 0
    assert "no store of completions yet" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["plot", "-o", "picture.txt"], 2, "is no picture"),
        (["plot", "-o", "nowhere/picture.png"], 3, "nowhere does not exist"),
        (["calibrate", "-o", "picture"], 2, "is no picture"),
        (["calibrate", "--split", "validation"], 2, "there is no split 'validation'"),
        (["calibrate", "--split", "other:dev"], 2, "there is no split 'other:dev'"),
        (["show", "--set", "confidence.calibrator=isotonic"], 3, "needs a calibration"),
        (["show", "--metric", "combined"], 3, "needs a calibration"),
        (["calibrate", "--split", "test"], 3, "has no completions of the test split"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_done_is_said(capsys, words, code, message):
    document, _ = run(capsys, *words, code=code)
    assert message in document["error"]["message"]
    assert document["error"]["hint"]


@pytest.mark.usefixtures("here")
def test_pictures_without_matplotlib_name_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    document, _ = run(capsys, "plot", "-o", "picture.png", code=3)
    assert "ccrl[report]" in document["error"]["hint"]


@pytest.mark.usefixtures("here")
def test_calibrate_fits_stores_and_is_used(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    before = run(capsys, "show")[0]["result"]
    picture = tmp_path / "reliability.png"
    document, err = run(capsys, "calibrate", "--split", "source:test", "-o", str(picture))
    view = document["result"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "training inputs" not in err
    assert view["num_fitted"] + view["num_held_out"] == sum(document["counts"].values())
    assert abs(view["num_fitted"] - view["num_held_out"]) <= 1
    assert set(view["after"]) == set(view["calibrators"]) == {"temperature", "platt", "isotonic"}
    assert view["best"] in view["calibrators"]
    assert "not the order" in view["note"]
    total = sum(part["count"] for part in view["before"]["bins"])
    assert total == view["num_held_out"]
    stored = json.loads((RUN / "completions.calibration.json").read_text())
    assert stored["calibrators"] == view["calibrators"]
    assert stored["report"]["measures"]["before"]["ece"] == pytest.approx(view["before"]["ece"])

    use = ["show", "--calibrator", "isotonic"]
    after = run(capsys, *use)[0]["result"]
    assert after["calibrator"] == "isotonic"
    assert [s["num_open"] for s in after["stages"]] == [s["num_open"] for s in before["stages"]]
    # The order is the same, so every stage opens the same labels.
    assert [s["oracle_f1"] for s in after["stages"]] == [s["oracle_f1"] for s in before["stages"]]
    assert after["top"][0]["mean_confidence"] != before["top"][0]["mean_confidence"]
    assert "expected right %" in text(capsys, *use)
    # A threshold reads the calibrated value.
    cut = after["top"][2]["lowest_confidence"]
    left = run(capsys, *use, "--set", f"curriculum.threshold={cut}")[0]["result"]
    assert 0 < left["num_left_out"] < left["num_inputs"]

    refused, _ = run(capsys, *use, "--label", "majority", code=3)
    assert "was fitted with label = 'entity_vote'" in refused["error"]["message"]
    shown = text(capsys, "calibrate", "--split", "source:test", "--against", "f1")
    assert "Reliability, before" in shown
    assert "against f1" in shown


@pytest.mark.usefixtures("here")
def test_a_fitted_combination_is_stored_and_used(capsys):
    document, _ = run(capsys, "calibrate", "--metric", "combined", "--split", "source:test")
    weights = document["result"]["combination"]
    assert {"intercept", "entity_vote", "self_consistency", "semantic_entropy"} <= set(weights)
    view = run(capsys, "show", "--metric", "combined")[0]["result"]
    assert view["metric"] == "combined"
    by_weights = run(
        capsys,
        *("show", "--metric", "combined"),
        *("--set", "confidence.weights.entity_vote=1", "--set", "confidence.weights.logprob=1"),
    )[0]["result"]
    assert by_weights["histogram"] != view["histogram"]


@pytest.mark.usefixtures("here")
def test_calibrating_on_training_inputs_is_called_by_its_name(capsys):
    document, _ = run(capsys, "calibrate", "--split", "train")
    assert any("training inputs too" in warning for warning in document["warnings"])


@pytest.mark.usefixtures("here")
def test_too_few_labelled_inputs_are_refused(capsys):
    words = ("--set", "data.target.max_train_samples=12")
    document, _ = run(capsys, "calibrate", "--split", "train", *words, code=3)
    assert "20 labelled inputs" in document["error"]["message"]


@pytest.mark.usefixtures("here")
def test_type_scores_become_a_confidence(capsys):
    """With scores beside the store the metric needs no model; a wrong type is unsure."""
    from ccrl_cli.config.load import load_profile
    from ccrl_cli.core.alignment import Aligner
    from ccrl_cli.pipelines.common.domains import load_domain
    from ccrl_cli.pipelines.labelling.samples import load_samples
    from ccrl_cli.pipelines.labelling.type_evidence import score_identity
    from ccrl_cli.store.type_scores import SpanScore, TypeScores, type_scores_path

    profile = load_profile("quickstart").profile
    domain = load_domain(profile, "target")
    found = load_samples(profile, domain)
    with JsonlWriter(type_scores_path(profile.store_path)) as writer:
        for key, (parses, _) in found.samples.items():
            example = found.examples[key]
            gold = {e.text: e.type for e in example.gold_entities()}
            spans = [
                SpanScore(
                    span, tuple(0.0 if gold.get(span) == kind else -9.0 for kind in domain.labels)
                )
                for span in spans_to_score(Aligner(example), parses)
            ]
            content_free = (0.0,) * len(domain.labels)
            writer.append(
                TypeScores(
                    key,
                    profile.model.name,
                    score_identity(profile, domain),
                    domain.labels,
                    content_free,
                    tuple(spans),
                ).to_json()
            )
    votes_say = ("--set", "confidence.type_rule=votes")
    view = run(capsys, "show", "--metric", "type_posterior", *votes_say)[0]["result"]
    votes = run(capsys, "show", "--metric", "entity_vote", *votes_say)[0]["result"]
    # Types by evidence are gold here, so that only spans can be wrong.
    assert run(capsys, "show")[0]["result"]["oracle_f1"] > votes["oracle_f1"]
    assert view["oracle_f1"] == votes["oracle_f1"]
    # An oracle of types finds wrong types, not missing entities: better than votes, not perfect.
    assert view["oracle_auroc"]["value"] > votes["oracle_auroc"]["value"]
