"""The cache: where it is, and that its folders appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ccrl_cli.errors import PreconditionError
from ccrl_cli.files import replacing_folder
from ccrl_cli.models import cache
from ccrl_cli.models.cache import cache_root, check_free_space, format_bytes, preparing
from ccrl_cli.reporting import NullReporter


def test_root_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("CCRL_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/big/cache"}, "/big/cache/ccrl"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "HOME/.cache/ccrl"),
        ("linux", {}, "HOME/.cache/ccrl"),
        ("darwin", {"XDG_CACHE_HOME": "/big/cache"}, "HOME/Library/Caches/ccrl"),
        ("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/ccrl/cache"),
        ("win32", {}, "HOME/AppData/Local/ccrl/cache"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="paths are written for POSIX")
def test_root_of_each_platform(monkeypatch, tmp_path, platform, variables, expected):
    for name in ("CCRL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cache.sys, "platform", platform)
    assert cache_root() == Path(expected.replace("HOME", str(tmp_path)))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (98_362_432, "98.4 MB"),
        (999_600_000, "1 GB"),
        (16_400_000_000, "16.4 GB"),
        (2_000_000_000_000, "2 TB"),
    ],
)
def test_format_bytes(count, text):
    assert format_bytes(count) == text


def test_too_little_space_names_both_sizes(tmp_path):
    check_free_space(tmp_path / "not" / "there", 1000, "small")
    with pytest.raises(PreconditionError, match=r"big needs 1e\+06 TB, and .* left"):
        check_free_space(tmp_path, 10**18, "big")


def test_a_second_process_waits_and_finds_the_folder(tmp_path):
    target = tmp_path / "model"
    reporter = NullReporter()
    owed = []

    def second():
        with preparing(target, reporter) as needed:
            owed.append(needed)

    with preparing(target, NullReporter()) as needed:
        assert needed
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 10
        while not reporter.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        target.mkdir()
    thread.join(10)
    assert owed == [False]
    assert "waiting for another process" in reporter.messages[0]


KILLED = """
import os, sys
from pathlib import Path
from ccrl_cli.files import replacing_folder
from ccrl_cli.models.cache import preparing
from ccrl_cli.reporting import NullReporter
target = Path(sys.argv[1])
with preparing(target, NullReporter()), replacing_folder(target) as folder:
    (folder / "weights").write_text("half")
    os._exit(9)
"""


def test_a_killed_process_leaves_no_lock_and_nothing_half_done(tmp_path):
    target = tmp_path / "model"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], env=environment, check=False)
    assert done.returncode == 9
    assert not target.exists()
    with preparing(target, NullReporter()) as needed, replacing_folder(target) as folder:
        assert needed
        (folder / "weights").write_text("all")
    assert (target / "weights").read_text() == "all"
    assert {path.name for path in tmp_path.iterdir()} <= {"model", ".model.lock"}


@pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PreconditionError) as caught, preparing(tmp_path / "m", NullReporter()):
        pass
    assert "CCRL_CACHE" in caught.value.hint


def test_a_file_in_the_way_names_the_variable(tmp_path):
    (tmp_path / "models").write_text("")
    with (
        pytest.raises(PreconditionError) as caught,
        preparing(tmp_path / "models" / "m", NullReporter()),
    ):
        pass
    assert "CCRL_CACHE" in caught.value.hint
