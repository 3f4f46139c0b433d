"""`ccrl report`: where the page goes, what is said, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

if any(importlib.util.find_spec(name) is None for name in ("matplotlib", "jinja2")):
    pytest.skip("needs matplotlib and jinja2", allow_module_level=True)

from ccrl_cli.cli.app import invoke
from made_run import make_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("work")
    make_run(place / "runs", "quickstart")
    make_run(place / "runs", "other", arm="naive-rl", noise={("target", "after"): 0.4})
    return place


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch):
    monkeypatch.chdir(folder)


def document(capsys, *words, code=0):
    assert invoke(["report", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_profiles_run_is_the_default(capsys):
    found = document(capsys)
    assert found["status"] == "done"
    assert found["result"]["path"] == str(Path("runs/quickstart/report.html"))
    assert found["result"]["finding"]["text"].startswith("Target F1 rose")
    assert found["result"]["reportable"] is False
    assert found["counts"]["figures"] == 10
    assert found["run_dir"] == str(Path("runs/quickstart"))
    html = Path("runs/quickstart/report.html").read_text(encoding="utf-8")
    assert found["counts"]["bytes"] == len(html.encode())
    assert "<title>quickstart</title>" in html


def test_the_answer_is_on_stdout(capsys):
    assert invoke(["report", "runs/quickstart", "--title", "A & B", "-o", "page.html"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Target F1 rose")
    assert any("proves little" in line for line in lines)
    assert lines[-1].startswith("page.html (")
    assert "<title>A &amp; B</title>" in Path("page.html").read_text(encoding="utf-8")


def test_several_runs_go_beside_the_first(capsys, folder):
    found = document(capsys, "runs/quickstart", "runs/other", "runs/quickstart")
    assert found["result"]["path"] == str(folder / "runs" / "report.html")
    assert found["result"]["runs"] == ["quickstart", "other"]
    assert found["result"]["finding"]["text"].startswith("Whether the curriculum beats naive RL")


def test_what_is_no_run_is_refused(capsys):
    found = document(capsys, "runs", code=3)
    assert found["error"]["kind"] == "precondition"
    assert "no manifest.json" in found["error"]["message"]
    assert "ccrl run" in found["error"]["hint"]


def test_a_place_that_cannot_be_written(capsys):
    Path("file").write_text("", encoding="utf-8")
    found = document(capsys, "runs/quickstart", "-o", "file/page.html", code=3)
    assert "cannot be written" in found["error"]["message"]


def test_a_missing_package_is_named(capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "jinja2" else real(name, *a)
    )
    found = document(capsys, "runs/quickstart", code=3)
    assert "the page needs jinja2" in found["error"]["message"]
    assert "ccrl[report]" in found["error"]["hint"]
