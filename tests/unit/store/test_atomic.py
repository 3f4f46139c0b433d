"""Atomic writing: old or new, never a part."""

from __future__ import annotations

import os
import sys

import pytest

from ccrl_cli.store import atomic
from ccrl_cli.store.atomic import replacing, write_bytes, write_json, write_text


def test_written_files_hold_what_was_given_and_leave_no_temporary(tmp_path):
    write_bytes(tmp_path / "new" / "a.bin", b"\x00\n")
    write_text(tmp_path / "b.txt", "é\r\n")
    write_json(tmp_path / "c.json", {"b": 1, "a": "\ud800"})
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"\x00\n"
    assert (tmp_path / "b.txt").read_bytes() == b"\xc3\xa9\r\n"
    assert (tmp_path / "c.json").read_bytes() == b'{\n  "b": 1,\n  "a": "\\ud800"\n}\n'
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.bin", "b.txt", "c.json", "new"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_target_changes(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    write_text(target, "old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permission bits")
def test_new_files_follow_the_umask(tmp_path):
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_replace_waits_for_a_reader_on_windows_alone(tmp_path, monkeypatch):
    calls = []

    class Busy:
        """A source that can be renamed at the third attempt."""

        def replace(self, target):
            calls.append(target)
            if len(calls) < 3:
                raise PermissionError

    monkeypatch.setattr(atomic, "_FIRST_WAIT_SECONDS", 0.0)
    monkeypatch.setattr(sys, "platform", "win32")
    atomic._replace(Busy(), tmp_path)
    assert len(calls) == 3
    calls.clear()
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(PermissionError):
        atomic._replace(Busy(), tmp_path)
    assert len(calls) == 1
