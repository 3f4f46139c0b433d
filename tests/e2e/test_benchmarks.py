"""The benchmark scripts of the learning core run and say what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POLITICS = Path(os.environ.get("CCRL_DATA_DIR", "nowhere")) / "crossner_politics"

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


@pytest.mark.skipif(not POLITICS.is_dir(), reason="CCRL_DATA_DIR has no crossner_politics")
def test_label_quality_on_mock_completions(tmp_path):
    words = ["--model", "pypi:none", "--backend", "mock", "--no-type-scores", "--data", POLITICS]
    words += ["--limit", 40, "-k", 6, "--out", "quality"]
    page = run("label_quality.py", *words, cwd=tmp_path)
    assert page == (tmp_path / "quality.md").read_text(encoding="utf-8")
    assert "not reportable" in page
    (result,) = json.loads((tmp_path / "quality.json").read_text(encoding="utf-8"))["sets"]
    assert result["sentences"] == 40
    rows = {(row["sampling"], row["rule"], row["metric"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) >= 2 * 4 * 4
    for row in rows.values():
        assert row["f1"]["low"] <= row["f1"]["value"] <= row["f1"]["high"]
        assert row["top_f1"]["1"] == pytest.approx(row["f1"]["value"])
    votes = rows["varied", "votes of 1/2", "entity_vote"]
    single = result["sampling"]["varied"]
    assert single["single_f1"] < votes["f1"]["value"] <= 1
    assert single["single_f1"] <= single["best_of_k_f1"]
