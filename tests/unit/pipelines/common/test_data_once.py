"""A command reads each file of its data once, however many of its steps ask for it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.data.catalog import DatasetSpec, SplitReader
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.common.manifest import run_manifest
from ccrl_cli.pipelines.curriculum.show import show_curriculum
from ccrl_cli.pipelines.evaluation.answering import View
from ccrl_cli.pipelines.generation.generate import GenerateOptions, generate
from ccrl_cli.reporting import NullReporter

FILES = ("train.jsonl", "dev.jsonl", "test.jsonl")
_watched: dict[str, Counter[Path]] = {}


def _on_event(event: str, arguments: tuple) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str):
        path = Path(arguments[0])
        for folder, counts in _watched.items():
            if str(path.parent) == folder:
                counts[path.name] += 1


sys.addaudithook(_on_event)


def write_split(folder, name, people):
    rows = [
        json.dumps({"text": f"{who} left .", "entities": [{"text": who, "type": "person"}]})
        for who in people
    ]
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    for name, people in zip(FILES, (("Ada", "Bob"), ("Cy",), ("Eve", "Ada")), strict=True):
        write_split(place, name, people)
    return place


@pytest.fixture
def opened(folder):
    """How often each file of the folder was opened."""
    counts = _watched[str(folder)] = Counter()
    yield counts
    del _watched[str(folder)]


def profile_of(folder, *values):
    return load_profile("quickstart", [
        "data.target.name=", f"data.target.path={folder.as_posix()}", "data.type_names={}",
        "generation.backend=mock", "generation.constrained=false", "model.adapter=",
        f"run.dir={(folder.parent / 'runs').as_posix()}", *values,
    ]).profile  # fmt: skip


def test_a_domain_reads_each_of_its_files_once(folder, opened):
    domain = load_domain(profile_of(folder), "target")
    for _ in range(2):
        assert len(domain.training_inputs()[0]) == 1  # Ada is in the test file too
        for name in ("train", "dev", "test"):
            domain.split(name)
    assert opened == dict.fromkeys(FILES, 1)


def test_the_steps_of_a_command_read_each_file_once(folder, opened):
    profile, data, quiet = profile_of(folder), SplitReader(), NullReporter()
    generate(profile, GenerateOptions(), reporter=quiet, data=data)
    show_curriculum(profile, reporter=quiet, data=data)
    view = View.load(profile, "target", data)
    run_manifest(profile, view.domain, {})
    assert opened == dict.fromkeys(FILES, 1)


def test_another_command_sees_what_changed_on_disk(folder, opened):
    profile, first = profile_of(folder), SplitReader()
    assert len(load_domain(profile, "target", first).split("train").examples) == 2
    write_split(folder, "train.jsonl", ("Ada", "Bob", "Flo"))
    assert len(load_domain(profile, "target", first).split("train").examples) == 2
    assert len(load_domain(profile, "target").split("train").examples) == 3
    assert opened["train.jsonl"] >= 2


def test_one_reader_keeps_specs_apart(folder):
    reader = SplitReader()
    whole = reader.load(DatasetSpec(str(folder)), "train")
    cut = reader.load(DatasetSpec(str(folder), max_samples=1), "train")
    renamed = reader.load(DatasetSpec(str(folder), {"train": "dev"}), "train")
    assert [len(split.examples) for split in (whole, cut, renamed)] == [2, 1, 1]
    assert renamed.examples[0].text.startswith("Cy")
    assert reader.load(DatasetSpec(str(folder)), "train") is whole
