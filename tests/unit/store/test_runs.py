"""Run directories: marks of finished steps, journals, resume."""

from __future__ import annotations

import json
import os
import re

import pytest

from ccrl_cli.errors import IntegrityError, PreconditionError
from ccrl_cli.store.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "one")


def test_manifest_and_evaluation(run):
    for read, command in (
        (run.read_manifest, "ccrl train"),
        (run.read_evaluation, "ccrl evaluate"),
    ):
        with pytest.raises(PreconditionError) as caught:
            read()
        assert command in caught.value.hint
    run.write_manifest({"seed": 0, "arm": "curriculum"})
    run.write_evaluation({"f1": 0.5})
    assert run.read_manifest() == {"seed": 0, "arm": "curriculum"}
    assert run.read_evaluation() == {"f1": 0.5}
    assert json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))["seed"] == 0


def test_names_of_files(run):
    names = [
        run.checkpoints_path,
        run.adapter_path,
        run.report_path,
        run.log_path,
        run.journal_path("stages"),
        run.predictions_path("target"),
    ]
    assert [path.relative_to(run.path).as_posix() for path in names] == [
        "checkpoints",
        "adapter",
        "report.html",
        "log.txt",
        "stages.jsonl",
        "predictions-target.jsonl",
    ]
    with pytest.raises(ValueError, match="other"):
        run.journal_path("other")


def test_a_step_is_done_for_the_same_inputs_alone(run):
    assert run.done("generate", "d1") is None
    mark = run.mark_done("generate", "d1", seconds=2.5, result={"records": 3})
    run.mark_done("train", "d2")
    assert run.done("generate", "d1") == mark
    assert (mark.seconds, mark.result) == (2.5, {"records": 3})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", mark.finished)
    assert run.done("generate", "d2") is None
    assert list(RunDirectory(run.path).steps()) == ["generate", "train"]
    run.mark_done("generate", "d3")
    assert run.done("generate", "d1") is None
    run.forget("generate")
    run.forget("never")
    assert list(run.steps()) == ["train"]


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": {}}'])
def test_a_damaged_state_is_an_integrity_error(run, content):
    run.path.mkdir(parents=True)
    run.state_path.write_text(content)
    with pytest.raises(IntegrityError, match=r"state\.json"):
        run.steps()


def test_one_process_a_run(run):
    with run, pytest.raises(PreconditionError, match=f"process {os.getpid()}"):
        RunDirectory(run.path).__enter__()
    with RunDirectory(run.path):
        assert (run.path / "run.lock").exists()
    assert list(run.path.iterdir()) == []


def test_journals_append(run):
    assert run.read_journal("metrics") == []
    with run.journal("metrics") as metrics, run.journal("stages") as stages:
        metrics.append({"step": 1, "loss": float("nan")})
        stages.append({"step": 1, "stage": 1})
    with run.journal("metrics") as metrics:
        metrics.append({"step": 2})
    assert run.read_journal("metrics") == [{"step": 1, "loss": None}, {"step": 2}]


def test_rewind_drops_what_a_resume_will_do_again(run):
    with run.journal("metrics") as metrics, run.journal("stages") as stages:
        for step in (1, 2, 3):
            metrics.append({"step": step})
            metrics.append({"note": step})
        stages.append({"stage": 1, "step": 1})
    with run.journal_path("metrics").open("ab") as stream:
        stream.write(b'{"step": 4')
    # kept: step 1, note 1, step 2, note 2; dropped: step 3 and the note after it
    assert run.rewind(2) == {"metrics": 2, "stages": 0}
    assert run.read_journal("metrics") == [{"step": 1}, {"note": 1}, {"step": 2}, {"note": 2}]
    assert run.journal_path("metrics").read_bytes().endswith(b'{"note":2}\n')
    assert run.rewind(2) == {"metrics": 0, "stages": 0}
    assert run.rewind(0) == {"metrics": 4, "stages": 1}


def test_rewind_refuses_an_open_journal_and_a_bad_line(run):
    with run.journal("metrics"), pytest.raises(PreconditionError, match="being written"):
        run.rewind(0)
    run.journal_path("metrics").write_bytes(b"{}\nbad\n")
    with pytest.raises(IntegrityError, match="line 2"):
        run.rewind(0)


def test_the_log_takes_any_text(run):
    run.log("épreuve \ud800")
    run.log("second")
    first, second = run.log_path.read_text(encoding="utf-8").splitlines()
    assert first.endswith("+00:00 épreuve \\ud800")
    assert second.endswith(" second")
