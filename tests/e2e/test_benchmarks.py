"""The benchmark scripts of the learning core run and say what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.core.type_evidence import SpanScore
from ccrl_cli.data.prompts import answer
from ccrl_cli.pipelines.common.domains import load_domain
from ccrl_cli.pipelines.labelling.type_evidence import score_identity
from ccrl_cli.records import Completion, Entity, Record
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.jsonl import JsonlWriter
from ccrl_cli.store.type_scores import TypeScores, type_scores_path

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def run(script, *words, codes=(0,), cwd):
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode in codes, done.stderr
    return done.stdout


def test_learning_core(tmp_path):
    pytest.importorskip("seqeval")
    out = run(
        "learning_core.py", "--inputs", 400, "--processes", 1, "--json", codes=(0, 1), cwd=tmp_path
    )
    result = json.loads(out)
    assert result["inputs"] == 400
    assert result["cpu_seconds_seqeval_scaled"] > result["cpu_seconds"] > 0


def test_label_quality_of_a_run(tmp_path):
    """Scored completions of the quickstart; the scores know gold types, so evidence beats votes."""
    words = [f"run.dir={tmp_path / 'runs'}", "run.name=quality", "data.target.max_train_samples=40"]
    profile = load_profile("quickstart", words).profile
    domain = load_domain(profile, "target")
    examples = {example.id: example for example in domain.training_inputs()[0]}
    first = domain.labels[0]
    profile.store_path.parent.mkdir(parents=True)
    with (
        CompletionStore(profile.store_path) as store,
        JsonlWriter(type_scores_path(profile.store_path)) as scores,
    ):
        for key, example in examples.items():
            kinds = {entity.text: entity.type for entity in example.gold_entities()}
            text = answer([Entity(name, first) for name in kinds], domain.names)
            completion = Completion(text, -0.1, 9, "stop")
            store.append(Record(key, example.text, profile.model.name, (completion,) * 4, {}))
            spans = tuple(
                SpanScore(name, tuple(-3.0 * (kind != label) for label in domain.labels))
                for name, kind in kinds.items()
            )
            identity, blank = score_identity(profile, domain), (0.0,) * len(domain.labels)
            record = TypeScores(key, profile.model.name, identity, domain.labels, blank, spans)
            scores.append(record.to_json())
    run_words = " ".join(["quickstart", *words])
    out = tmp_path / "quality.json"
    page = run("label_quality.py", "--run", run_words, "--out", out, cwd=tmp_path)
    (row,) = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert row["inputs"] == 40
    rules = row["rules"]
    assert rules["votes alone"]["f1"] < 60 < rules["as the profile says"]["f1"]
    assert rules["right types"]["f1"] >= rules["as the profile says"]["f1"]
    assert list(rules) == [line.split(" | ")[0][2:] for line in page.splitlines()[2:]]
