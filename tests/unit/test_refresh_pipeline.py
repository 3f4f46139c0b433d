"""A profile's refresher, from its store."""

from __future__ import annotations

from ccrl_cli.cli.app import invoke
from ccrl_cli.config.load import load_profile
from ccrl_cli.pipelines.domains import load_domain
from ccrl_cli.pipelines.labels import load_labels
from ccrl_cli.pipelines.refresh import make_refresher
from ccrl_cli.pipelines.samples import load_samples


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
