"""Hub models: which files, how large, and what is said when the hub does not give them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
from huggingface_hub import errors

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.models import hub
from ccrl_cli.models.hub import cached_snapshot, missing_files, select_model_files
from ccrl_cli.reporting import NullReporter

COMMIT = "c" * 40


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [
                "model.safetensors",
                "pytorch_model.bin",
                "config.json",
                "README.md",
                ".gitattributes",
            ],
            ["config.json", "model.safetensors"],
        ),
        (
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "consolidated.safetensors",
                "pytorch_model.bin.index.json",
                "original/consolidated.00.pth",
                "onnx/model.onnx",
                "tokenizer.model",
                "merges.txt",
            ],
            [
                "merges.txt",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
                "model.safetensors.index.json",
                "tokenizer.model",
            ],
        ),
        (
            ["pytorch_model.bin", "pytorch_model.bin.index.json", "training_args.bin"],
            ["pytorch_model.bin", "pytorch_model.bin.index.json"],
        ),
        (
            ["adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"],
            ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"],
        ),
    ],
)
def test_files_of_a_model(names, expected):
    assert select_model_files(names) == expected


def test_missing_files(tmp_path):
    assert missing_files(tmp_path) == ["config.json", "model.safetensors"]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    assert missing_files(tmp_path) == []
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").write_text("")
    assert missing_files(tmp_path) == ["model-2.safetensors"]
    (tmp_path / "model.safetensors.index.json").write_text("{")
    assert missing_files(tmp_path) == ["model.safetensors.index.json (unreadable)"]


@pytest.fixture
def repository(monkeypatch, tmp_path):
    """A hub with one small model in a cache of its own; the library's calls are replaced."""
    weights = b"weights"
    contents = {"config.json": b"{}", "model.safetensors": weights, "README.md": b"read"}
    cache = tmp_path / "hub"
    snapshot = cache / "models--org--tiny" / "snapshots" / COMMIT

    class Hub:
        failure: Exception | None = None
        sha256 = hashlib.sha256(weights).hexdigest()
        folder = snapshot

    def sibling(name: str):
        lfs = SimpleNamespace(sha256=Hub.sha256) if name.endswith(".safetensors") else None
        return SimpleNamespace(rfilename=name, size=len(contents[name]), lfs=lfs)

    def model_info(self, name, revision, files_metadata):
        if Hub.failure:
            raise Hub.failure
        return SimpleNamespace(sha=COMMIT, siblings=[sibling(name) for name in contents])

    def snapshot_download(name, *, revision, allow_patterns, local_files_only=False):
        if local_files_only and not snapshot.exists():
            raise errors.LocalEntryNotFoundError("not here")
        if not local_files_only:
            if Hub.failure:
                raise Hub.failure
            snapshot.mkdir(parents=True, exist_ok=True)
            for file in allow_patterns:
                (snapshot / file).write_bytes(contents[file])
        return str(snapshot)

    def try_to_load_from_cache(name, file, revision, repo_type):
        assert (revision, repo_type) == (COMMIT, "model")
        return str(snapshot / file) if (snapshot / file).exists() else None

    # tests/e2e/test_download_hub.py has the real client fetch large files
    monkeypatch.setattr(hub, "fetch_large", lambda *places, **file: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", try_to_load_from_cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return Hub


def test_plan_and_download(repository):
    plan = hub.plan_model("org/tiny", None)
    assert [file.name for file in plan.files] == ["config.json", "model.safetensors"]
    assert (plan.total_bytes, plan.missing_bytes) == (9, 9)  # "{}" and "weights"
    assert cached_snapshot("org/tiny", None) is None
    reporter = NullReporter()
    folder = hub.download_model(plan, None, reporter)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert reporter.pieces[0].done == reporter.pieces[0].total == 1
    assert cached_snapshot("org/tiny", None) == folder
    again = hub.plan_model("org/tiny", None)
    assert (again.total_bytes, again.missing_bytes) == (9, 0)


def test_a_part_of_a_snapshot_does_not_count(repository):
    repository.folder.mkdir(parents=True)
    (repository.folder / "config.json").write_text("{}")
    assert cached_snapshot("org/tiny", None) is None
    assert hub.plan_model("org/tiny", None).missing_bytes == 7


def test_a_cut_copy_does_not_count(repository):
    hub.download_model(hub.plan_model("org/tiny", None), None, NullReporter())
    (repository.folder / "model.safetensors").write_bytes(b"wei")
    plan = hub.plan_model("org/tiny", None)
    assert [file.name for file in plan.files if not file.cached] == ["model.safetensors"]
    hub.download_model(plan, None, NullReporter())
    assert (repository.folder / "model.safetensors").read_bytes() == b"weights"


def test_the_checksum_is_verified(repository):
    repository.sha256 = "0" * 64
    plan = hub.plan_model("org/tiny", None)
    with pytest.raises(IntegrityError, match=r"model\.safetensors of org/tiny"):
        hub.download_model(plan, None, NullReporter())
    assert not (repository.folder / "model.safetensors").exists()


def test_too_little_space(repository, monkeypatch):
    monkeypatch.setattr(
        "ccrl_cli.models.cache.shutil.disk_usage", lambda path: SimpleNamespace(free=1000)
    )
    with pytest.raises(PreconditionError, match="1 kB left"):
        hub.download_model(hub.plan_model("org/tiny", None), None, NullReporter())


def answered(kind: type[Exception], status: int) -> Exception:
    response = httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/x"))
    return kind(f"{status} error", response=response)


@pytest.mark.parametrize(
    ("failure", "message", "hint"),
    [
        (answered(errors.GatedRepoError, 403), "access .* must be granted", "hf auth login"),
        (answered(errors.HfHubHTTPError, 403), "access .* must be granted", "hf auth login"),
        (answered(errors.RepositoryNotFoundError, 401), "does not exist", "hf auth login"),
        (answered(errors.RepositoryNotFoundError, 404), "does not exist", "org/tiny"),
        (answered(errors.RevisionNotFoundError, 404), "no such revision", "commits/main"),
        (answered(errors.HfHubHTTPError, 500), "500 error", "goes on"),
        (httpx.ConnectError("no route"), "no route", "goes on"),
        (httpx.ReadTimeout(""), "ReadTimeout", "goes on"),
        (errors.OfflineModeIsEnabled("offline mode"), "offline mode", "--offline"),
    ],
)
@pytest.mark.parametrize("stage", ["plan", "download"])
def test_why_the_hub_does_not_give_it(repository, failure, message, hint, stage):
    plan = hub.plan_model("org/tiny", None)
    repository.failure = failure
    calls = {
        "plan": lambda: hub.plan_model("org/tiny", None),
        "download": lambda: hub.download_model(plan, None, NullReporter()),
    }
    with pytest.raises(PreconditionError, match=message) as caught:
        calls[stage]()
    assert hint in caught.value.hint


def test_bugs_are_not_hidden(repository):
    repository.failure = AttributeError("bug")
    with pytest.raises(AttributeError):
        hub.plan_model("org/tiny", None)


def test_a_model_without_loadable_weights(repository, monkeypatch):
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "model_info",
        lambda *args, **options: SimpleNamespace(
            sha=COMMIT, siblings=[SimpleNamespace(rfilename="m.gguf", size=1, lfs=None)]
        ),
    )
    with pytest.raises(PreconditionError, match="no safetensors"):
        hub.plan_model("org/tiny", None)


def test_bars_of_the_library_are_as_before(repository):
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    hub.download_model(hub.plan_model("org/tiny", None), None, NullReporter())
    assert are_progress_bars_disabled() == before


def test_patterns_match_nothing_else():
    assert hub._escaped(["a[1].json"]) == ["a[[]1].json"]
    assert Path("a[1].json").match(hub._escaped(["a[1].json"])[0])
