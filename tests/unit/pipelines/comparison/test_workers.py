"""The queue of arms: real processes that answer, die, and take the next pair."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ccrl_cli.config.load import load_profile
from ccrl_cli.pipelines.comparison import workers
from ccrl_cli.pipelines.comparison.arms import arms_path
from ccrl_cli.pipelines.comparison.baselines import ArmRun
from ccrl_cli.reporting import NullReporter

WORKER = """
import json, os, sys
for line in sys.stdin:
    pair = json.loads(line)
    print("{a line that is no result")
    print(json.dumps({"progress": 1}))
    if pair["arm"] == "naive-rl":
        os._exit(9)
    status = "failed" if pair["arm"] == "random-order" else "done"
    cause, tried = None, os.path.join(sys.argv[1], f"{pair['arm']}-{pair['seed']}")
    if pair["arm"] == "oracle" and not os.path.exists(tried):
        status, cause = "failed", "memory"
        open(tried, "w").close()
    print(json.dumps({**pair, "run_dir": str(os.getpid()), "status": status, "seconds": 1.0,
                      "message": "no memory" if status == "failed" else None, "cause": cause}),
          flush=True)
"""


class Reporter(NullReporter):
    """Keeps warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile whose workers are scripts; what arms share is there."""
    loaded = load_profile("quickstart", [f"run.dir={tmp_path}", "baselines.seeds=2"]).profile
    arms_path(loaded).mkdir(parents=True)
    started = []

    def start(recipe, log, place, *, overwrite):
        assert recipe.is_file()
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        worker = workers._Worker(process, log)
        started.append((log.name, place, process))
        return worker

    done = ArmRun("zero-shot", 0, "here", "done", 1.0)
    monkeypatch.setattr(workers, "prepare", lambda *_, **__: done)
    monkeypatch.setattr(workers, "_start", start)
    return loaded, started


def test_every_pair_is_worked_off_and_a_death_costs_one_pair(profile):
    loaded, started = profile
    reporter = Reporter()
    arms = ["naive-sft", "naive-rl", "curriculum", "random-order"]
    runs = workers.run_parallel(loaded, 2, arms=arms, reporter=reporter)
    assert [(run.arm, run.seed) for run in runs] == [
        ("zero-shot", 0),
        *((arm, seed) for seed in (0, 1) for arm in arms),
    ]
    status = {(run.arm, run.seed): run.status for run in runs}
    assert status == {
        pair: "failed" if pair[0] in ("naive-rl", "random-order") else "done" for pair in status
    }
    dead = next(run for run in runs if run.arm == "naive-rl")
    assert "its process ended with 9 (see" in dead.message
    assert "worker-" in dead.message
    assert len(reporter.warnings) == 4
    assert any("no memory" in warning for warning in reporter.warnings)
    assert 3 <= len(started) <= 4, "two died; others took their place while there was work"
    assert all(process.poll() is not None for _, _, process in started)
    answers = [run.run_dir for run in runs[1:] if run.arm != "naive-rl"]
    assert len(set(answers)) < len(answers), "a process answered one pair each"


def test_an_arm_without_room_beside_others_runs_again_alone(profile):
    loaded, started = profile
    reporter = Reporter()
    runs = workers.run_parallel(loaded, 2, arms=["naive-sft", "oracle"], reporter=reporter)
    assert {(run.arm, run.seed): run.status for run in runs[1:]} == {
        (arm, seed): "done" for arm in ("naive-sft", "oracle") for seed in (0, 1)
    }
    assert len([line for line in reporter.warnings if "with a GPU to itself" in line]) == 2
    assert len(started) == 3, "two at first, and one alone for both at the end"
    alone = str(started[-1][2].pid)
    assert [run.run_dir for run in runs if run.arm == "oracle"] == [alone, alone]


def test_an_arm_without_room_though_alone_has_failed(profile):
    loaded, started = profile
    runs = workers.run_parallel(loaded, 1, arms=["oracle"], reporter=Reporter())
    assert [run.status for run in runs[1:]] == ["failed", "failed"]
    assert len(started) == 1


def test_no_more_workers_than_work(profile):
    loaded, started = profile
    workers.run_parallel(loaded, 8, arms=["curriculum"], reporter=Reporter())
    assert len(started) == 2


def test_a_dead_worker_is_replaced_in_its_place(profile, monkeypatch):
    loaded, started = profile
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    workers.run_parallel(loaded, 2, arms=["naive-rl", "curriculum"], reporter=Reporter())
    found = {(log, place) for log, place, _ in started}
    assert found == {("worker-1.log", "3"), ("worker-2.log", "5")}
    assert len(started) > 2


def test_gpus_are_taken_in_turns(profile, monkeypatch):
    loaded, started = profile
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    workers.run_parallel(loaded, 3, arms=["curriculum", "naive-sft"], reporter=Reporter())
    assert [place for _, place, _ in started] == ["3", "5", "3"]
    assert [log for log, _, _ in started] == ["worker-1.log", "worker-2.log", "worker-3.log"]


SLOW_TO_STOP = """
import json, sys, time
from ccrl_cli.cli.signals import stopping_at_signals
from ccrl_cli.pipelines.comparison.workers import _pairs_from_stdin
import threading
busy = threading.Event()
with stopping_at_signals():
    for pair in _pairs_from_stdin(busy):
        try:
            print("at work", flush=True)
            while True:
                time.sleep(0.05)
        except KeyboardInterrupt:
            time.sleep(0.5)
            open(sys.argv[1], "w").close()
            sys.exit(130)
"""


def test_a_busy_worker_stops_at_a_safe_place_when_its_input_is_closed(tmp_path):
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_STOP, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    worker = workers._Worker(process, tmp_path / "log")
    worker.give(("curriculum", 0))
    assert worker.lines.get(timeout=60).strip() == b"at work"
    workers._stop([worker])
    assert state.exists(), "it was killed before it had saved its state"
    assert process.returncode == 130


CHILD_OF_A_WORKER = """
import subprocess, sys, threading
from ccrl_cli.pipelines.comparison.workers import _pairs_from_stdin
busy = threading.Event()
for pair in _pairs_from_stdin(busy):
    done = subprocess.run([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"],
                          capture_output=True, encoding="utf-8", timeout=60)
    busy.clear()
    print(done.stdout.strip(), flush=True)
"""


def test_what_a_worker_starts_does_not_inherit_its_input(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD_OF_A_WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker = workers._Worker(process, tmp_path / "log")
    worker.give(("curriculum", 0))
    assert worker.lines.get(timeout=60).strip() == b"''"
    workers._stop([worker])
    assert process.returncode == 0


def serve(given: str) -> subprocess.CompletedProcess[str]:
    """Give a real worker its standard input, which then ends."""
    words = [sys.executable, "-m", "ccrl_cli", "baselines", "worker"]
    return subprocess.run(words, input=given, capture_output=True, encoding="utf-8", timeout=60)


def test_a_line_that_is_no_pair_is_named():
    pytest.importorskip("peft", reason="a worker looks for what it trains with first")
    done = serve("nonsense\n")
    assert done.returncode == 2
    assert "standard input holds 'nonsense', no arm and seed" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_gpu_is_no_choice(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert workers._gpu_places() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert workers._gpu_places() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(workers, "count_gpus", lambda: 2)
    assert workers._gpu_places() == ["0", "1"]
