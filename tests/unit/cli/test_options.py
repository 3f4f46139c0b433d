"""What commands make of the words they are given."""

from __future__ import annotations

from pathlib import Path

from ccrl_cli.cli.options import expanded


def test_patterns_are_expanded_where_no_shell_has_done_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl", "c.txt", "s[1]-1.jsonl", "s[1]-2.jsonl"):
        Path(name).write_text("")
    given = ["*.jsonl", "?.txt", "none-*", "s[1]-?.jsonl", "[ab].jsonl", str(tmp_path / "a*")]
    found = [str(path) for path in expanded(map(Path, given))]
    assert found == [
        *("a.jsonl", "b.jsonl", "s[1]-1.jsonl", "s[1]-2.jsonl"),
        "c.txt",
        "none-*",
        *("s[1]-1.jsonl", "s[1]-2.jsonl"),
        "[ab].jsonl",
        str(tmp_path / "a.jsonl"),
    ]
