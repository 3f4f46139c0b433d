"""`ccrl generate` killed, interrupted and starved: whatever happens, a finished sample stays."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ccrl_cli.cli.app import invoke
from ccrl_cli.records import content_id
from ccrl_cli.store.completions import CompletionStore
from ccrl_cli.store.locks import WriterLock
from ccrl_cli.store.shards import shard_of, shard_path

NO_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="a signal to another process kills it")

PROFILE = """
[run]
name = "k"
[model]
name = "org/any"
[data.source]
name = "sample:newswire"
[data.target]
path = "inputs.jsonl"
labels = ["craft", "planet"]
[generation]
backend = "mock"
num_completions = 4
store = "store.jsonl"
"""
STORE = Path("store.jsonl")
MODEL = "org/any"


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Write a profile and as many inputs as are asked for into an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("ccrl.toml").write_text(PROFILE)

    def write(count):
        rows = [
            {
                "text": f"Probe {number} left Earth .",
                "entities": [{"text": f"Probe {number}", "type": "craft"}],
            }
            for number in range(count)
        ]
        Path("inputs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    return write


def start(*words, **options):
    command = [sys.executable, "-m", "ccrl_cli", "generate", "--json", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options
    )


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for(path, count, process, seconds=60.0):
    end = time.monotonic() + seconds
    while lines(path) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def complete_lines(path):
    """Every whole line of a file: what had been finished at this moment."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1]


NURSERY = """
import os, signal, sys
import ccrl_cli.cli.commands.generate, ccrl_cli.generators.mock
import ccrl_cli.pipelines.generation.generate
from ccrl_cli.cli.app import invoke
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(invoke(line.split()))
    print(pid, flush=True)
"""


class Nursery:
    """Starts `ccrl` in processes of their own that need not import it first.

    A start costs most of a second of computing, nearly all of it imports; a kill during imports
    shows nothing. So most processes are forked from one that has imported the command.
    """

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def start(self, words):
        self.process.stdin.write(" ".join(["generate", "-q", *words]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Writer:
    """One job of an array that is killed and started again."""

    def __init__(self, number, count, rng, nursery):
        self.rng, self.nursery = rng, nursery
        self.path = shard_path(STORE, number, count)
        self.words = ["--resume", "--shard", f"{number}/{count}"]
        self.finished = b""
        self.kills = self.mid_run = 0
        self.start()

    def start(self):
        words = [*self.words, "--set", "generation.mock_seconds=0.03"]
        self.child = None
        if self.rng.random() < 0.1:  # a whole start of the command, imports and all
            self.child = start(*words)
            self.pid = self.child.pid
        else:
            self.pid = self.nursery.start(words)
        # one in six anywhere in the start, the others anywhere in the first 0.3 s of new work
        self.deadline = None
        if self.rng.random() < 1 / 6:
            self.deadline = time.monotonic() + self.rng.uniform(0.0, 0.5)

    def kill_if_due(self):
        if self.deadline is None and len(complete_lines(self.path)) > len(self.finished):
            self.deadline = time.monotonic() + self.rng.uniform(0.0, 0.3)
        if self.deadline is None or time.monotonic() < self.deadline:
            ended = self.child.poll() is not None if self.child else not is_alive(self.pid)
            assert not ended, "too little work for so many kills"
            return False
        os.kill(self.pid, signal.SIGKILL)
        self.kills += 1
        if self.child is not None:
            self.child.communicate()
        while is_alive(self.pid):
            time.sleep(0.001)
        now = complete_lines(self.path)
        # nothing that had been finished before this kill was lost or changed
        assert now.startswith(self.finished)
        self.mid_run += len(now) > len(self.finished)
        self.finished = now
        return True


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_200_kills_of_three_writers_and_a_merge_lose_nothing(inputs):
    count, writers, kills = 1_800, 3, 200
    inputs(count)
    rng = random.Random(20240607)
    with Nursery() as nursery:
        jobs = [Writer(number, writers, rng, nursery) for number in range(1, writers + 1)]
        while sum(job.kills for job in jobs) < kills:
            for job in jobs:
                if job.kill_if_due():
                    job.start()
            time.sleep(0.005)
        for job in jobs:
            job.deadline = 0.0
            assert job.kill_if_due()
    before = sum(job.finished.count(b"\n") for job in jobs)
    assert sum(job.mid_run for job in jobs) > kills // 2, "too many kills came before the work"
    assert 0 < before < count, "the kills must fall into unfinished work"
    for job in jobs:
        assert invoke(["generate", "-q", *job.words]) == 0
        assert complete_lines(job.path).startswith(job.finished)
        assert not Path(f"{job.path}.lock").exists()
    assert invoke(["store", "merge", "-q"]) == 0
    assert invoke(["store", "verify", "-q"]) == 0
    ids = [record.input_id for record in CompletionStore(STORE).records()]
    assert len(ids) == len(set(ids)) == lines(STORE) == count
    merged = set(STORE.read_bytes().split(b"\n"))
    for job in jobs:  # every finished sample is there as it was written, once
        assert all(line in merged for line in job.finished.split(b"\n"))


@NO_SIGNALS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_keeps_what_is_done_and_goes_on(inputs, number):
    inputs(60)
    process = start("--set", "generation.mock_seconds=0.02")
    wait_for(STORE, 5, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    document = json.loads(out)
    assert document["status"] == "interrupted"
    assert "--resume" in document["error"]["hint"]
    kept = STORE.read_bytes()
    assert 4 <= kept.count(b"\n") < 60  # the fifth may have been in flight: written, not flushed
    assert kept.endswith(b"\n")
    assert not Path("store.jsonl.lock").exists()
    again = start("--resume")
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert json.loads(out)["result"]["already_stored"] == {MODEL: kept.count(b"\n")}
    assert STORE.read_bytes().startswith(kept)
    assert lines(STORE) == 60


def test_a_full_disk_ends_partial_and_goes_on(inputs):
    inputs(60)
    resource = pytest.importorskip("resource", reason="no file size limit on this system")

    def small_disk():  # bytes of one file; SIGXFSZ is ignored by Python: writing fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(preexec_fn=small_disk)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    document = json.loads(out)
    assert (document["status"], document["error"]["kind"]) == ("partial", "partial")
    assert "free some space" in document["error"]["hint"]
    kept = STORE.read_bytes()
    assert 0 < len(kept) <= 20_000
    assert kept.endswith(b"\n")
    assert invoke(["generate", "--resume", "-q"]) == 0
    assert STORE.read_bytes().startswith(kept)
    assert lines(STORE) == 60


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_may_not_be_written_is_exit_3(inputs, capsys):
    inputs(3)
    Path("closed").mkdir(mode=0o500)
    assert invoke(["generate", "--store", "closed/store.jsonl", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "precondition"


def test_a_read_only_folder_is_exit_3_for_any_user(inputs, tmp_path, capsys):
    inputs(3)
    if os.name == "nt" or not Path("/proc/self").exists():
        pytest.skip("needs /proc, which nobody can write")
    assert invoke(["generate", "--store", "/proc/self/store.jsonl", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "precondition"
    assert "/proc/self/store.jsonl" in error["message"]


def test_a_second_writer_is_exit_3_and_changes_nothing(inputs, capsys):
    inputs(3)
    with WriterLock(STORE):
        assert invoke(["generate", "--json"]) == 3
        error = json.loads(capsys.readouterr().out)["error"]
        assert f"being written by process {os.getpid()} on host" in error["message"]
    assert invoke(["generate", "-q"]) == 0
    assert lines(STORE) == 3


def test_the_lock_of_a_killed_writer_is_taken_over(inputs):
    inputs(60)
    process = start("--set", "generation.mock_seconds=0.02")
    wait_for(STORE, 2, process)
    assert Path("store.jsonl.lock").exists()
    process.kill()
    process.communicate()
    assert Path("store.jsonl.lock").exists()
    assert invoke(["generate", "--resume", "-q"]) == 0
    assert lines(STORE) == 60


def test_shards_of_a_job_array_and_their_counts(inputs, capsys):
    inputs(90)
    owed = {1: 0, 2: 0, 3: 0}
    for number in range(90):
        owed[shard_of(content_id(f"Probe {number} left Earth ."), 3)] += 1
    for number in (3, 1, 2):
        assert invoke(["generate", "--shard", f"{number}/3", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)["result"]
        assert result["generated"] == {MODEL: owed[number]}
        assert result["already_stored"] == {MODEL: 0}
    assert invoke(["store", "merge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["records"] == 90
    assert invoke(["generate", "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "nothing"
    assert invoke(["generate", "--resume", "--shard", "1/3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["already_stored"] == {MODEL: owed[1]}
