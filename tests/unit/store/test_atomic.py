"""Atomic writing: old or new, never a part."""

from __future__ import annotations

import os

import pytest

from ccrl_cli.errors import HeldError
from ccrl_cli.store.atomic import replacing, write_bytes, write_json, write_text
from held import hold
from links import link_to


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
    link_to(target, link)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permission bits")
def test_new_files_follow_the_umask(tmp_path):
    write_text(tmp_path / "a", "")
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_file_open_elsewhere_is_waited_for_and_then_said(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    hold(monkeypatch, lambda _, target: target == path, times=3)
    write_text(path, "new")
    assert path.read_text() == "new"
    hold(monkeypatch, lambda _, target: target == path)
    with pytest.raises(HeldError, match="is open in another program") as caught:
        write_text(path, "newer")
    assert path.read_text() == "new"
    (kept,) = set(tmp_path.iterdir()) - {path}
    assert str(kept) in caught.value.hint
    assert kept.read_text() == "newer"
