"""`ccrl run` reads each split once, passes over the store once, and derives its labels once."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl", "peft")):
    pytest.skip("needs torch, transformers, trl and peft", allow_module_level=True)

from ccrl_cli.config.load import load_profile
from ccrl_cli.pipelines.labelling import labels
from ccrl_cli.pipelines.run import run
from ccrl_cli.reporting import NullReporter
from ccrl_cli.store.completions import CompletionStore
from tiny_chat import write_tiny_chat

_opened: dict[str, Counter[str]] = {}


def _on_event(event: str, arguments: tuple) -> None:
    if event == "open" and _opened and isinstance(arguments[0], str):
        path = Path(arguments[0])
        for folder, counts in _opened.items():
            if str(path.parent) == folder:
                counts[path.name] += 1


sys.addaudithook(_on_event)


def write_data(folder: Path, kind: str) -> Path:
    folder.mkdir()
    for name, count in (("train", 6), ("dev", 2), ("test", 2)):
        rows = [
            {"text": f"{who} {name} left .", "entities": [{"text": who, "type": kind}]}
            for who in ("Ada", "Bo", "Cy", "Di", "Ed", "Flo")[:count]
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def profile(tmp_path):
    model = write_tiny_chat(tmp_path / "model")
    target = write_data(tmp_path / "target", "person")
    source = write_data(tmp_path / "source", "human")
    return load_profile("quickstart", [
        f"run.dir={(tmp_path / 'runs').as_posix()}", f"model.name={model.as_posix()}",
        "model.adapter=", "model.dtype=float32", "generation.backend=mock",
        "generation.constrained=false", "data.target.name=", "data.source.name=",
        f"data.target.path={target.as_posix()}", f"data.source.path={source.as_posix()}",
        "data.type_names={}", "evaluation.decode=greedy", "evaluation.max_tokens=8",
        "training.max_steps=1", "training.prompts_per_step=2", "training.micro_batch_size=8",
        "training.max_prompt_tokens=1000", "training.max_completion_tokens=8",
        "training.probe_size=1", "training.probe_source_size=1", "training.guard.enabled=false",
        "curriculum.rounds=1",
    ]).profile  # fmt: skip


def test_a_run_reads_everything_once(profile, tmp_path, monkeypatch):
    derived, passes = [], []
    derive, records = labels.derive_labels, CompletionStore.records

    def deriving(*arguments, **more):
        derived.append(arguments[0].run.name)
        return derive(*arguments, **more)

    def passing(self, *arguments, **more):
        if self.path == profile.store_path:
            passes.append(self.path)
        return records(self, *arguments, **more)

    monkeypatch.setattr(labels, "derive_labels", deriving)
    monkeypatch.setattr(CompletionStore, "records", passing)
    folders = {name: str(tmp_path / name) for name in ("target", "source")}
    _opened.update({folder: Counter() for folder in folders.values()})
    try:
        result = run(profile, reporter=NullReporter())
        counts = {name: dict(_opened[folder]) for name, folder in folders.items()}
    finally:
        _opened.clear()
    assert result.training.steps == 1
    assert counts["target"]["train.jsonl"] == counts["target"]["test.jsonl"] == 1
    assert max(counts["target"].values()) == max(counts["source"].values()) == 1
    assert len(derived) == 1
    assert len(passes) == 1
