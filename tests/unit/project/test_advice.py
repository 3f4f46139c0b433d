"""What messages tell a user to type: it works in every shell."""

from __future__ import annotations

import re
from pathlib import Path

import ccrl_cli

SOURCES = sorted(Path(ccrl_cli.__file__).parent.rglob("*.py"))


def advice(pattern: str) -> list[str]:
    found = []
    for path in SOURCES:
        lines = path.read_text("utf-8").splitlines()
        found += [f"{path.name}: {line.strip()}" for line in lines if re.search(pattern, line)]
    return found


def test_pip_lines_have_double_quotes():
    """In cmd a single quote is a letter of the name."""
    assert advice(r"pip install .*ccrl\[")
    assert not advice(r"pip install '")


def test_variables_are_not_set_in_the_words_of_one_shell():
    assert not advice(r"export \{?[A-Za-z_]+\}?=")


def test_four_bit_weights_are_not_sent_to_unsloth():
    (hint,) = advice(r"load_in_4bit=false")
    assert "ccrl[cuda]" in hint
