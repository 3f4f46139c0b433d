"""What a manifest says about the machine."""

from __future__ import annotations

from ccrl_cli.pipelines.common.manifest import git_state
from programs import put_on_path

GIT = """
import sys
assert sys.stdin.read() == "", "it has an input of its own"
sys.stdout.buffer.write(b"0123\\n" if "rev-parse" in sys.argv else b" M M\\x81\\xff.txt\\n")
"""


def test_names_of_files_that_no_encoding_knows_are_no_matter(tmp_path, monkeypatch):
    put_on_path(monkeypatch, tmp_path, "git", GIT)
    assert git_state() == {"commit": "0123", "changed": True}


def test_a_git_that_fails_is_none(tmp_path, monkeypatch):
    put_on_path(monkeypatch, tmp_path, "git", "raise SystemExit(128)")
    assert git_state() is None
