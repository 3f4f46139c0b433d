"""A profile's refresher, from its store."""

from __future__ import annotations

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.config.load import load_profile
from ccrl_cli.errors import UsageError
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.generation.type_scores import score_types
from ccrl_cli.pipelines.labelling.labels import load_labels
from ccrl_cli.pipelines.labelling.samples import load_samples
from ccrl_cli.pipelines.training.refresh import make_refresher, make_type_renewal
from ccrl_cli.reporting import NullReporter


def test_a_refresh_from_the_stores_own_completions_changes_no_label(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["generate", "--backend", "mock", "-q"]) == 0
    capsys.readouterr()
    never = load_profile("quickstart").profile
    profile = load_profile(
        "quickstart", ["curriculum.refresh_every_steps=5", "curriculum.refresh_window=3"]
    ).profile
    domain = load_domain(profile, "target")
    labels, found = load_labels(profile, domain), load_samples(profile, domain)
    chosen = dict.fromkeys(list(labels.labels)[:40])
    assert make_refresher(never, domain, labels, chosen) is None
    refresher = make_refresher(profile, domain, labels, chosen)
    assert set(refresher.labels) == set(chosen)
    assert (refresher.settings.window, refresher.settings.source) == (3, "rollouts")
    for key in chosen:
        refresher.observe(key, *found.samples[key])
    refreshed = refresher.refresh(5)
    assert not refreshed.labels
    assert refreshed.records[-1]["estimated"] == 40
    for key in chosen:  # the same evidence says the same
        assert abs(refreshed.confidence[key] - labels.labels[key].confidence) < 1e-12


@pytest.mark.parametrize("prior", ["content_free", "matching"])
def test_a_teacher_is_asked_for_types_as_the_store_was(tmp_path, monkeypatch, capsys, prior):
    """The same weights about the same answers: the same scores, types and posteriors."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from ccrl_cli.models.loading import load_model
    from ccrl_cli.models.weights import LoadOptions, Weights
    from tiny_chat import write_tiny_chat

    monkeypatch.chdir(tmp_path)
    model = write_tiny_chat(tmp_path / "model")
    values = [
        f"model.name={model}",
        "model.adapter=",
        "model.dtype=float32",
        "curriculum.refresh_every_steps=5",
        f"confidence.type_prior={prior}",
        "data.target.max_train_samples=12",
    ]
    words = [word for value in values for word in ("--set", value)]
    assert invoke(["generate", "--backend", "mock", "-q", *words]) == 0
    capsys.readouterr()
    profile = load_profile("quickstart", [*values, "curriculum.refresh_from=ema"]).profile
    score_types(profile, reporter=NullReporter())
    domain = load_domain(profile, "target")
    labels, found = load_labels(profile, domain), load_samples(profile, domain)
    loaded = load_model(Weights(model), LoadOptions("float32"))
    assert (
        make_type_renewal(load_profile("quickstart", values).profile, domain, labels, loaded)
        is None
    )
    renewal = make_type_renewal(profile, domain, labels, loaded)
    parses = found.parses
    chosen, posteriors = renewal.weigh(renewal.score(loaded.model, parses), parses)
    assert chosen == labels.chosen_types
    for key, expected in labels.posteriors.items():
        assert posteriors[key] == pytest.approx(expected, abs=1e-4)
    assert any(labels.posteriors.values())
    # Other weights say something else.
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight.mul_(-1.0)
    _, moved = renewal.weigh(renewal.score(loaded.model, parses), parses)
    assert moved != posteriors


def test_a_teacher_beside_unsloth_is_refused():
    values = ["curriculum.refresh_every_steps=5", "curriculum.refresh_from=ema"]
    assert load_profile("quickstart", values)
    with pytest.raises(UsageError, match=r"refresh_from 'ema' needs training\.backend 'trl'"):
        load_profile("quickstart", [*values, "training.backend=unsloth"])
