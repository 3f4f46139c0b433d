"""Writer locks: one owner, taken over from the dead alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.store import locks
from ccrl_cli.store.locks import LockOwner, WriterLock

HOLD = """
import sys
from pathlib import Path
from ccrl_cli.store.locks import WriterLock
lock = WriterLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def hold(path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert child.stdout.readline() == "held\n"
    return child


def end(child):
    child.kill()
    child.communicate()


def test_the_lock_file_names_its_owner_and_goes_with_it(tmp_path):
    with WriterLock(tmp_path / "new" / "a.jsonl") as lock:
        owner = json.loads(lock.path.read_bytes())
        assert lock.path == tmp_path / "new" / "a.jsonl.lock"
        assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
        assert lock.taken_over is None
    assert not lock.path.exists()
    lock.release()


def test_a_second_lock_in_one_process_is_refused(tmp_path):
    with WriterLock(tmp_path / "a"), pytest.raises(PreconditionError, match=str(os.getpid())):
        WriterLock(tmp_path / "a").acquire()
    WriterLock(tmp_path / "a").acquire()


def test_a_live_owner_is_named_and_a_killed_one_is_followed(tmp_path):
    path = tmp_path / "a.jsonl"
    child = hold(path)
    try:
        with pytest.raises(PreconditionError) as caught:
            WriterLock(path).acquire()
        assert f"process {child.pid} on host {socket.gethostname()}" in caught.value.message
    finally:
        end(child)
    assert (tmp_path / "a.jsonl.lock").exists()
    with WriterLock(path) as lock:
        assert lock.taken_over.pid == child.pid


def test_who_gets_the_kernels_lock_owns_it_whatever_has_the_last_owners_number(tmp_path):
    me = LockOwner.this_process()
    (tmp_path / "a.lock").write_text(json.dumps(asdict(me)))
    with WriterLock(tmp_path / "a") as lock:
        assert lock.taken_over == me


def test_without_locks_of_the_kernel_the_written_owner_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_try_lock", lambda _: None)
    me = LockOwner.this_process()
    (tmp_path / "a.lock").write_text(json.dumps(asdict(me)))
    with pytest.raises(PreconditionError, match=f"process {os.getpid()}") as caught:
        WriterLock(tmp_path / "a").acquire()
    assert "remove" in caught.value.hint


def test_a_name_that_is_being_deleted_is_waited_for(tmp_path, monkeypatch):
    """Windows refuses it until the last program that had it open has let go."""
    tries = []
    real = os.open

    def deleted_meanwhile(path, *arguments, **options):
        if str(path).endswith("a.lock"):
            tries.append(path)
            if len(tries) < 4:
                raise PermissionError(13, "Access is denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", deleted_meanwhile)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(locks, "_SECONDS_BETWEEN", 0.0)
    lock = WriterLock(tmp_path / "a")
    lock.acquire()
    lock.release()
    assert len(tries) == 4


def test_a_lock_file_that_is_never_the_one_opened_ends_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_is_same_file", lambda *_: False)
    with pytest.raises(PreconditionError, match="is being written by another process"):
        WriterLock(tmp_path / "a").acquire()


def test_a_forked_child_does_not_keep_the_lock_of_its_dead_parent(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    code = HOLD.replace("sys.stdin.read()", "import os, time\nif os.fork() == 0: time.sleep(60)")
    code = code.replace('print("held", flush=True)', "")
    code = code.replace("time.sleep(60)", "print(os.getpid(), flush=True); time.sleep(60)")
    code += "\nelse: os._exit(0)"
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    orphan = int(child.stdout.readline())
    child.wait()
    try:
        with WriterLock(tmp_path / "a") as lock:
            assert lock.taken_over.pid == child.pid
    finally:
        os.kill(orphan, 9)
        child.stdout.close()


def test_an_owner_on_another_host_is_never_taken_for_dead(tmp_path):
    (tmp_path / "a.lock").write_text('{"host": "elsewhere", "pid": 1, "started": null}')
    with pytest.raises(PreconditionError, match="process 1 on host elsewhere") as caught:
        WriterLock(tmp_path / "a").acquire()
    assert "remove" in caught.value.hint


def test_a_reused_pid_is_told_by_its_start_time():
    me = LockOwner.this_process()
    assert not me.is_gone
    if me.started is not None:
        assert LockOwner(me.host, me.pid, me.started - 1).is_gone
    assert not LockOwner(me.host, me.pid, None).is_gone


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', b"\xff"])
def test_a_lock_file_that_says_nothing_is_taken_over(tmp_path, content):
    (tmp_path / "a.lock").write_bytes(content)
    with WriterLock(tmp_path / "a") as lock:
        assert lock.taken_over is None


def test_of_many_that_find_a_stale_lock_one_wins_at_a_time(tmp_path):
    path = tmp_path / "a"
    end(hold(path))
    inside, most, wins = 0, 0, 0
    guard = threading.Lock()

    def compete():
        nonlocal inside, most, wins
        for _ in range(200):
            try:
                with WriterLock(path):
                    with guard:
                        inside, wins = inside + 1, wins + 1
                        most = max(most, inside)
                    with guard:
                        inside -= 1
            except PreconditionError:
                continue

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert wins > 0


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_that_may_not_be_written_is_a_precondition(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PreconditionError, match="lock file"):
            WriterLock(tmp_path / "a").acquire()
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder_is_a_precondition(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PreconditionError, match="lock file"):
        WriterLock(tmp_path / "file" / "a").acquire()


@pytest.mark.skipif(
    not (hasattr(os, "waitid") and Path("/proc/self/stat").exists()),
    reason="a zombie is known by /proc",
)
def test_a_dead_owner_whom_nobody_has_waited_for_is_gone(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = LockOwner(socket.gethostname(), child.pid, None)
    assert not owner.is_gone
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead now, and still listed
    try:
        assert Path(f"/proc/{child.pid}/stat").exists()
        assert owner.is_gone
    finally:
        child.communicate()
